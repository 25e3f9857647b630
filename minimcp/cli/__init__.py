"""The command line: `python -m minimcp run|list|call|read|prompt`."""
