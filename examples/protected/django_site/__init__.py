"""A Django project whose users sign in to the server with django-oauth-toolkit; their groups are their roles.

Needs django-oauth-toolkit. From the folder `examples`:

    export DJANGO_SETTINGS_MODULE=protected.django_site.settings SITE_URL=http://localhost:8000
    python -m django migrate
    python -m django createapplication public authorization-code --client-id desk \\
        --redirect-uris http://127.0.0.1:7000/callback
    gunicorn --bind localhost:8000 'django.core.wsgi:get_wsgi_application()'

A client that was registered so, `OAuth(client_id="desk", redirect_uri="http://127.0.0.1:7000/callback")`, finds its way
from http://localhost:8000/mcp alone. A page of the site itself calls as the user who has logged in.
"""
