"""An HTTP/1.1 server for any WSGI application: a thread per connection, kept alive, framed strictly."""
