"""The other end: a blocking client for any server of any revision."""
