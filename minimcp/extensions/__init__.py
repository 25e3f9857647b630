"""Official extensions of the protocol; each is a folder that nothing else needs."""
