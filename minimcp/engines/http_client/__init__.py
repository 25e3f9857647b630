"""An HTTP/1.1 client with deadlines and cancellation."""
