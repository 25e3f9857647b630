"""The server, and where things are."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.views import LoginView
from django.urls import include, path

from minimcp import Context, Server
from minimcp.auth import DjangoUser

server = Server(
    "django-site",
    "1.0",
    auth=DjangoUser(issuers=[settings.OAUTH2_PROVIDER["OIDC_ISS_ENDPOINT"]]),
    public_url=f"{settings.SITE_URL}/mcp",
)


@server.tool
def greet(ctx: Context) -> str:
    """Greet the caller."""
    return f"Hello {ctx.principal.id}"


@server.tool(roles=["staff"])
def report() -> str:
    """Write a report; for the group staff alone."""
    return "All is well."


view = server.django_view()
urlpatterns = [
    path("login", LoginView.as_view(template_name="login.html")),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("mcp", view),
    # Clients look here for the authorization server; what is here beside that answers 404.
    path(".well-known/<path:rest>", view),
]
