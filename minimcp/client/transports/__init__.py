"""The ways to a server: a pipe to a process, HTTP of both eras, HTTP+SSE, WSGI, memory."""
