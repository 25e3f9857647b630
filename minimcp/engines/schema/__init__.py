"""Python types to JSON Schema and back: hints, conversion, docstrings, and validation that is bounded and offline."""
