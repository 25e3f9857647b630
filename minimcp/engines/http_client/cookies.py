"""The cookies of one server, kept by the rules of the standard library; nothing is loaded before there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..fork import PerProcess

if TYPE_CHECKING:
    import email.message
    from http.cookiejar import CookieJar


class Cookies:
    """A cookie jar that is made when a server sets the first cookie; the jar has a lock of its own."""

    def __init__(self) -> None:
        self._jar = PerProcess(_jar)
        self._empty = True

    def take(self, url: str, values: list[str]) -> None:
        """Keep what the `Set-Cookie` headers of an answer from this URL say."""
        import email.message
        from urllib.request import Request

        headers = email.message.Message()
        for value in values:
            headers["Set-Cookie"] = value
        self._jar().extract_cookies(_Answered(headers), Request(url))  # type: ignore[arg-type]
        self._empty = False

    def header(self, url: str) -> str | None:
        """Return the `Cookie` header for a request to this URL, if it has any."""
        if self._empty:
            return None
        from urllib.request import Request

        request = Request(url)
        self._jar().add_cookie_header(request)
        return request.get_header("Cookie")


def _jar() -> CookieJar:
    from http.cookiejar import CookieJar

    return CookieJar()


class _Answered:
    """An answer as a cookie jar reads it."""

    def __init__(self, headers: email.message.Message) -> None:
        self._headers = headers

    def info(self) -> email.message.Message:
        return self._headers
