"""Facts and words of the protocol: no input or output, no state, no threads."""
