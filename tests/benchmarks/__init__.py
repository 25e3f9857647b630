"""Benchmarks that print tables side by side with other implementations; nothing here asserts a time."""
