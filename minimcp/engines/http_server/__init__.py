"""An HTTP/1.1 server for any WSGI application: a thread per connection, keep-alive, strict framing.

It knows nothing of MCP. Of Werkzeug's code it runs `ThreadedWSGIServer.__init__` and two functions for addresses, and
of `socketserver` below that `process_request_thread`, `shutdown_request`, `server_close` and a handler's constructor;
accepting, framing, responses, limits and shutdown are its own. Werkzeug's own handler closes every connection. Calls
per second with 1 / 8 / 64 connections, measured:

    this server                                     18,700 / 12,800 / 12,900
    Werkzeug's handler, keep-alive in 25 lines       6,400 /  6,500 /  4,800   (p99 at 64: 480 ms)
    Werkzeug as it comes                             1,600 /  1,100 /  1,100

Parsing a head takes 3.9 us where h11, a fourth dependency, takes 41.7. `serve(app)` needs nothing else. In the environ
`werkzeug.socket` tells an application whether its client is still there, and `minimcp.work` (see `gate`) lets it name
the kind of work of a request and count the processor time of other threads.
"""
