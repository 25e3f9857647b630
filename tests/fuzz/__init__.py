"""Fuzzers: hostile bytes and values made by hypothesis; `MINIMCP_FUZZ_EXAMPLES` makes them run longer."""
