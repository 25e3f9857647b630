"""What strangers send, what breaks, and what must come of it: one test for each row of the catalogue."""
