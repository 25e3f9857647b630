"""Logs in whoever sends a token; in a real project this is your session, OAuth or API key middleware."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core import signing
from django.http import HttpRequest, HttpResponse

YEAR_S = 365 * 24 * 3600


def make_token(user: object) -> str:
    """Make the token that logs this user in for a year."""
    return signing.dumps(user.pk, salt="polls token")


class TokenMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            request.user = get_user_model().objects.get(pk=signing.loads(token, salt="polls token", max_age=YEAR_S))
        except (signing.BadSignature, get_user_model().DoesNotExist):
            request.user = AnonymousUser()
        return self.get_response(request)
