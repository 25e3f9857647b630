"""Credentials of HTTP requests: the two methods that a client calls, and the same two as an `auth=` of `requests`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .response import Headers

if TYPE_CHECKING:
    import requests


class SignedAnswer(NamedTuple):
    """An answer to a request.

    :ivar headers: of the answer, by lower-case name.
    :ivar sent: the headers of the request, by lower-case name.
    """

    method: str
    url: str
    status: int
    headers: Headers
    sent: Headers


class Auth(Protocol):
    """Credentials for the requests to one server; used by several threads at once."""

    def sign(self, method: str, url: str, headers: Headers) -> Headers:
        """Return the headers to add to a request, which is about to be sent with these.

        The time this takes is not the server's: it may ask a person.
        """

    def answered(self, answers: Sequence[SignedAnswer]) -> bool:
        """Take note of an answer, and say whether to sign the request and send it again.

        :param answers: all answers to this request, the newest last.
        """


def is_native(auth: Any) -> bool:
    """Say whether credentials have the two methods, and need no `requests`."""
    return hasattr(auth, "sign") and hasattr(auth, "answered")


def attach(auth: Auth, request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Do for a request of `requests` what its `auth=` is called for."""
    request.headers.update(auth.sign(request.method or "", request.url or "", dict(request.headers)))
    request.register_hook("response", partial(_answered, auth))  # type: ignore[no-untyped-call]
    return request


def _answered(auth: Auth, response: requests.Response, **how: Any) -> requests.Response:
    """Replace an answer by that to a second request, as often as the credentials say so."""
    answers: list[SignedAnswer] = []
    try:
        while True:
            request = response.request
            sent = {name.lower(): str(value) for name, value in request.headers.items()}
            headers = {name.lower(): value for name, value in response.headers.items()}
            answers.append(SignedAnswer(request.method or "", request.url or "", response.status_code, headers, sent))
            if not auth.answered(answers):
                return response
            response = _again(auth, response, how)
    except BaseException:
        response.close()
        raise


def _again(auth: Auth, response: requests.Response, how: dict[str, Any]) -> requests.Response:
    """Send the request of a response once more, as `requests.auth.HTTPDigestAuth` does."""
    import requests

    from ..errors import AuthorizationError

    if not how.get("stream"):
        response.content  # noqa: B018  # what requests would have read anyway
    response.close()
    request = response.request.copy()
    if getattr(request.body, "seek", None) is not None:
        requests.utils.rewind_body(request)
    elif hasattr(request.body, "__next__"):
        raise AuthorizationError("The body was a generator and cannot be sent again with a token; send it once more")
    request.headers.update(auth.sign(request.method or "", request.url or "", dict(request.headers)))
    connection: Any = response.connection
    again: requests.Response = connection.send(request, **how)
    again.history.append(response)
    again.request = request
    return again
