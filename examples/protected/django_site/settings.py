"""Settings of the whole project."""

from __future__ import annotations

import os

SITE_URL = os.environ["SITE_URL"]
SECRET_KEY = os.environ.get("SITE_SECRET", "only for trying out")
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "protected.django_site.urls"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "oauth2_provider"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "oauth2_provider.middleware.OAuth2TokenMiddleware",
]
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "oauth2_provider.backends.OAuth2Backend"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("SITE_DATABASE", "site.sqlite3")}
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LOGIN_URL = "/login"
FORM = '<form method="post">{% csrf_token %}{{ form }}<button>Log in</button></form>'
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "context_processors": ["django.template.context_processors.request"],
            "loaders": [
                ("django.template.loaders.locmem.Loader", {"login.html": FORM}),
                "django.template.loaders.app_directories.Loader",
            ],
        },
    }
]
OAUTH2_PROVIDER = {
    "SCOPES": {"mcp": "Call the tools"},
    "OIDC_ENABLED": True,  # publishes the metadata by which clients find the rest
    "OIDC_ISS_ENDPOINT": f"{SITE_URL}/o",
    "PKCE_REQUIRED": True,
}
