"""OAuth: getting tokens, keeping them, and showing them to servers."""
