"""The registry, the dispatcher and its two eras."""
