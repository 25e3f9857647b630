"""Monitoring: the recent calls of a server, latencies, metrics, log lines, and trace context."""
