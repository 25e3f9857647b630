"""Servers that know their callers: `server.py` behind nginx, `flask_site.py` and `django_site.py` inside applications.

`README.md` has the settings for five identity providers, which `providers.py` turns into verifiers.
"""
