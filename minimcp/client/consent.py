"""Consent: approval of tool calls by a person or a policy.

`Client(target, approve=f)` calls `f(proposal)` before every tool call, and sends nothing unless it returns true. There
are two approvers: `terminal()` asks a person, and `allow(...)` lets some calls pass unasked:

    Client(target, approve=consent.allow("search", read_only=True, otherwise=consent.terminal()), trusted=True)

Spec: FEAT-012, FEAT-038, FEAT-039
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from .errors import NotApproved

if TYPE_CHECKING:
    from .targets import Target

Message = dict[str, Any]
Approve = Callable[["Proposal"], Any]

_MOST_CHARACTERS = 400
_MOST_ARGUMENTS = 30


class Proposal(dict):  # type: ignore[type-arg]
    """A tool call that is about to be made:

    `{"server": str, "tool": {...}, "arguments": {...}, "annotations": {...}, "trusted": bool}`

    `server` is the target of the client, without secrets; `tool` the definition as it was listed, without annotations.
    `annotations` are {} unless the server is trusted, since one that is not may claim anything. Spec: FEAT-012

    :ivar key: names the server among all others, and may hold secrets; never shown.
    """

    def __init__(self, tool: Message, arguments: Message, trusted: bool, server: str, key: str = "") -> None:
        self.key = key or server
        annotations = tool.get("annotations")
        super().__init__(
            server=server,
            tool={key: value for key, value in tool.items() if key != "annotations"},
            arguments=copy.deepcopy(arguments),
            annotations=dict(annotations) if trusted and isinstance(annotations, dict) else {},
            trusted=trusted,
        )

    @property
    def name(self) -> str:
        """The name of the tool."""
        return str(self["tool"].get("name"))

    @property
    def read_only(self) -> bool:
        """True when a trusted server says that the tool changes nothing."""
        return self["annotations"].get("readOnlyHint") is True


def ask(approve: Approve, tool: Message, arguments: Message, trusted: bool, target: Target) -> None:
    """Put a call to `approve`.

    :raises NotApproved: when it does not agree. Spec: FEAT-039
    """
    proposal = Proposal(tool, arguments, trusted, target.shown, target.key)
    if not approve(proposal):
        raise NotApproved(f"The call of the tool {proposal.name!r} was not approved; nothing was sent")


def allow(*names: str, read_only: bool = False, otherwise: Optional[Approve] = None) -> Approve:
    """Make a policy that lets calls of these tools pass and asks `otherwise` about the rest.

    :param read_only: let tools pass that only read, if the server is trusted.
    :param otherwise: asked about every other call; without it they are refused.
    """

    def approve(proposal: Proposal) -> Any:
        if proposal.name in names or (read_only and proposal.read_only):
            return True
        return otherwise is not None and otherwise(proposal)

    return approve


def terminal(*, read_only: bool = False, input: Any = None, output: Any = None) -> Approve:
    """Make an approver that asks a person: it shows the tool and the arguments, escaped and cut, and takes an answer.

    The answer is "y", "always" or, for anything else, no.

    "always" holds until the tool's definition changes, and for this one approver.

    :param read_only: do not ask about tools that only read, if the server is trusted.
    :param input: a file to read answers from, by default standard input, if that is a terminal.
    :param output: a file to write to, by default standard error.
    :raises NotApproved: when nobody can be asked.
    """
    lock = threading.Lock()  # held while a person is asked: one question at a time; guards always
    always: set[str] = set()

    def approve(proposal: Proposal) -> bool:
        if read_only and proposal.read_only:
            return True
        key = _fingerprint(proposal)
        with lock:
            if key in always:
                return True
            source, sink = input or sys.stdin, output or sys.stderr
            if sink is None or source is None or (input is None and not source.isatty()):
                raise NotApproved(f"The tool {proposal.name!r} needs approval, but there is no terminal to ask on")
            sink.write(_describe(proposal, _MOST_CHARACTERS, _MOST_ARGUMENTS))
            while True:
                sink.write("Allow it? [y]es, [N]o, [a]lways this tool, [s]how everything: ")
                sink.flush()
                answer = source.readline().strip().lower()
                if answer in ("s", "show"):
                    sink.write(_describe(proposal, None, None))
                    continue
                if answer in ("a", "always"):
                    always.add(key)
                return answer in ("y", "yes", "a", "always")

    return approve


def _fingerprint(proposal: Proposal) -> str:
    # With the definition, so that a tool that becomes another under its old name is asked about again.
    text = json.dumps([proposal.key, proposal["tool"]], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _describe(proposal: Proposal, characters: Optional[int], most: Optional[int]) -> str:
    tool, arguments = proposal["tool"], list(proposal["arguments"].items())
    lines = [f"\nThe tool {printable(proposal.name, characters)} of {printable(proposal['server'], characters)}"]
    for key in ("title", "description"):
        if isinstance(tool.get(key), str):
            lines.append(f"  it says: {printable(tool[key], characters)}")
    lines.append("is to be called with" if arguments else "is to be called without arguments.")
    for name, value in arguments[:most]:
        text = json.dumps(value, ensure_ascii=False, default=repr)
        lines.append(f"  {printable(name, characters)} = {printable(text, characters)}")
    if most is not None and len(arguments) > most:
        lines.append(f"  ... and {len(arguments) - most} more arguments")
    return "\n".join(lines) + "\n"


def printable(text: str, most: Optional[int] = None) -> str:
    """Make a text fit for a terminal: escape control and invisible characters, and cut it after `most` characters."""
    shown = text if most is None else text[:most]
    shown = "".join(each if each.isprintable() else _escape(each) for each in shown)
    return shown if most is None or len(text) <= most else f"{shown}... [{len(text)} characters in all]"


def _escape(character: str) -> str:
    return {"\n": "\\n", "\t": "\\t"}.get(character, f"\\u{ord(character):04x}")
