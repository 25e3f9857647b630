"""The official conformance suite, and the server it runs against."""
