"""Fuzzers, bounded here and longer with the environment variable MINIMCP_FUZZ_EXAMPLES."""
