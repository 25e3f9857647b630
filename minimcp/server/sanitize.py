"""The filter of what leaves a server: sizes, characters that hide text from a person, and secrets. Spec: FEAT-037"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

from ..protocol import content, wire
from ..protocol.errors import InternalError, McpError
from .batch import Batch
from .engine import Engine
from .tracing import PassedCall

log = logging.getLogger("minimcp")

Message = dict[str, Any]

# C0 and C1 controls but tab, line feed and carriage return; soft hyphen; zero-width and bidirectional characters; line
# and paragraph separators; invisible operators; the variation selectors and tags that can carry a text of their own.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_PLAIN = re.compile("[\t\n\r -~]*").fullmatch
# Joins the parts of an emoji, and letters in some scripts; elsewhere it shows nothing.
_JOINER = re.compile("(?<![\u0600-\u0dff\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])[\u200c\u200d]")
# Keys whose form says what they are; each has a beginning that nothing else has.
_FORMS = (
    r"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,200}",
    r"\bgh[pousr]_[A-Za-z0-9]{36,255}",
    r"\bgithub_pat_[A-Za-z0-9_]{22,255}",
    r"\bglpat-[A-Za-z0-9_-]{20,100}",
    r"\bxox[abeprs]-[A-Za-z0-9-]{10,255}",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"\bAIza[A-Za-z0-9_-]{35}",
    r"\bmcp_[A-Za-z0-9_-]{43}",
    r"\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,2000}",
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\S]{0,8000}?-----END [A-Z ]{0,30}PRIVATE KEY-----",
)
_SECRETS = re.compile("|".join(_FORMS))
# Patterns that begin with letters, each by itself, are searched for twenty times as fast; only what has one is changed.
_QUICK = [re.compile(form.replace(r"\b", "")).search for form in _FORMS]
_SHORTEST = 15
_REDACTED = "[redacted]"
# Base64 of images, sound and files.
_BINARY = frozenset({"data", "blob"})
# What a client sends back, or looks up, must stay as it is.
_VERBATIM = frozenset({"requestState", "nextCursor", "uri", "uriTemplate", "method"})


class Sanitizer:
    """The settings of the filter: `Server(sanitize=Sanitizer(...))`.

    :param max_bytes: the most bytes of a result as JSON; a larger one fails with a message that says so.
    :param hidden: whether characters that a person does not see are left out.
    :param secrets: whether keys and tokens of well-known forms are replaced by "[redacted]".
    :param patterns: further regular expressions whose matches are replaced.
    """

    def __init__(
        self,
        max_bytes: int | None = 4 * 1024 * 1024,
        *,
        hidden: bool = True,
        secrets: bool = True,
        patterns: Iterable[str | re.Pattern[str]] = (),
    ) -> None:
        self.max_bytes = max_bytes
        self._hidden = hidden
        self._secrets = secrets
        self._patterns = [re.compile(pattern) for pattern in patterns]

    def text(self, text: str) -> str:
        """Return a text without what is hidden or secret."""
        if self._hidden and not _PLAIN(text):
            text = _HIDDEN.sub(_shown, _JOINER.sub("", text))
        if self._secrets and len(text) >= _SHORTEST and any(search(text) for search in _QUICK):
            text = _SECRETS.sub(_REDACTED, text)
        for pattern in self._patterns:
            text = pattern.sub(_REDACTED, text)
        return text

    def value(self, value: Any, key: Any = None) -> Any:
        """Return a copy of a JSON value whose strings are filtered, but for binary data and what is sent back."""
        if isinstance(value, str):
            return value if key in _VERBATIM else self.text(value)
        if isinstance(value, dict):
            binary = _BINARY if "mimeType" in value or "uri" in value else frozenset()
            return {name: item if name in binary else self.value(item, name) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def message(self, message: Message, method: str | None = None) -> Message:
        """Return a message as it may leave.

        :param method: of the request that it answers.
        """
        if "error" in message:
            return {**message, "error": self.value(message["error"])}
        if "result" not in message:
            return {**message, "params": self.value(message["params"])} if "params" in message else message
        result = self.value(message["result"])
        if self.max_bytes is not None and (size := len(wire.encode(result))) > self.max_bytes:
            text = f"The result has {size} bytes, and at most {self.max_bytes} are sent; ask for less"
            if method == "tools/call":
                failed = {name: item for name, item in result.items() if name in ("resultType", "_meta")}
                return {**message, "result": {**failed, "content": [content.text(text)], "isError": True}}
            return wire.error(message.get("id"), InternalError(text))
        return {**message, "result": result}


class Sanitizing:
    """Filters the messages of an engine from now on."""

    def __init__(self, engine: Engine, sanitizer: Sanitizer) -> None:
        self._sanitizer = sanitizer
        self._call, self._refuse = engine.call, engine.refuse
        # On the engine itself, so that a server without a filter pays nothing for it.
        vars(engine).update(call=self.call, refuse=self.refuse)

    def call(self, message: Any, **more: Any) -> PassedCall | Batch | None:
        """Return the call of a message, whose own messages are filtered."""
        call = self._call(message, **more)
        if call is None or isinstance(message, list):
            # The members of a batch come one by one.
            return call  # type: ignore[return-value]
        method = message.get("method")
        return PassedCall(call, lambda outgoing: self._sanitizer.message(outgoing, method))

    def refuse(self, message: Any, problem: McpError, *more: Any) -> Message:
        """Return the filtered reply to a message that was not taken."""
        return self._sanitizer.message(self._refuse(message, problem, *more))


def _shown(match: re.Match[str]) -> str:
    # A separator stood for a line break.
    return "\n" if match[0] in "\u2028\u2029" else ""
