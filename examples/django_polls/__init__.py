"""A Django project for polls, whose questions a language model can read and vote on: the file `tools.py`.

Needs django, and gunicorn for more than one worker. From the folder `examples`:

    export DJANGO_SETTINGS_MODULE=django_polls.settings MINIMCP_SECRET=$(openssl rand -hex 32)
    python -m django migrate
    python -m django seed               # makes two users, a poll, and prints a token for each user
    gunicorn --workers 4 django_polls.wsgi

A host connects to http://127.0.0.1:8000/mcp and sends the header `Authorization: Bearer TOKEN`.
A vote is confirmed by the person. The confirmation may reach another worker than the one that asked for it: what was
asked travels with it, signed with MINIMCP_SECRET, which all workers share.
"""
