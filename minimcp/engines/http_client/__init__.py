"""An HTTP/1.1 client with deadlines and cancellation; it knows nothing of MCP.

A request has one deadline, a read that timed out can be taken up again, any thread can hang up, everything is bounded,
credentials never leave their origin, and an answer that is cut off is an error. A `requests.Session`, or credentials
made for `requests`, go through `requests` whole (`foreign`).

The price of doing without it, measured per call of a tool: a bare socket takes 47 us, `http.client` 139, the pool of
urllib3 212, `requests.post` 419; this client takes 121 with all the work of a transport. `http.client` also takes a
truncated answer for a whole one, cannot take up a read that timed out, and cannot be cancelled before the head came.
"""
