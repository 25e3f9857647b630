"""A Celery task that writes a report with what two MCP servers say: a process of its own, and one met over HTTP.

Needs celery, and gevent for the last line but one. From the folder `examples`, each in a terminal of its own:

    python -m minimcp run structured.py --http 8000             # the weather
    celery --app celery_report.tasks worker --pool prefork --concurrency 2
    celery --app celery_report.tasks worker --pool gevent --concurrency 20   # or this one
    python -m celery_report Bergen Oslo                         # asks for two reports and prints them

Messages go through the folder `report-queue`, so that this runs without Redis or RabbitMQ; use one of these instead.
"""
