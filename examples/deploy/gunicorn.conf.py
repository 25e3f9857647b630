"""gunicorn with four workers of 64 threads each; `gunicorn -c gunicorn.conf.py server:app`."""

import os
import signal
import threading

bind = os.environ.get("MCP_BIND", "127.0.0.1:8000")
workers = 4
worker_class = "gthread"
threads = 64
# A worker whose threads are all taken leaves further connections to the others.
worker_connections = 64
# nginx opens a connection for each request, so that none is on its way to a worker that stops.
keepalive = 0
# What a worker has to stop in, and what nobody hears of a worker before it is killed.
graceful_timeout = 30
timeout = 60
accesslog = None


def post_worker_init(worker):
    """Let a worker that is to stop end its streams first: a stream would keep it, and its client, for an hour."""
    from server import bus, stop

    if bus is not None:
        bus.start()

    def on_stop(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # The process ends with this thread, which is not a daemon, and with what it waits for.
        threading.Thread(target=stop, name="stop").start()
        if hasattr(worker, "set_accept_enabled"):
            worker.handle_exit(number, frame)
            return
        # gunicorn up to 23 drops what it has accepted and not read when it stops, so that first it accepts no more.
        for listener in worker.sockets:
            worker.poller.unregister(listener)
        threading.Timer(0.5, worker.handle_exit, (number, frame)).start()

    signal.signal(signal.SIGTERM, on_stop)
