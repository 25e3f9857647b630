"""Consent: approval of tool calls by a person or a policy.

`Client(target, approve=f)` calls `f(proposal)` before every tool call, and sends nothing unless it returns true. There
are three approvers: `terminal()` asks a person, `allow(...)` lets some calls pass unasked, and `once(f)` asks `f` about
each tool once:

    Client(target, approve=consent.allow("search", read_only=True, otherwise=consent.terminal()), trusted=True)

What was approved for good is remembered for one server and the exact definition of one tool, in memory or in a file.

Spec: FEAT-012, FEAT-038, FEAT-039
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Optional, Union

from ..engines.errors import printable
from .errors import NotApproved

if TYPE_CHECKING:
    from .targets import Target

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Approve = Callable[["Proposal"], Any]
Path = Union[str, "os.PathLike[str]"]

_MOST_CHARACTERS = 400
_MOST_ARGUMENTS = 30


class Proposal(dict):  # type: ignore[type-arg]
    """A tool call that is about to be made:

    `{"server": str, "tool": {...}, "arguments": {...}, "annotations": {...}, "trusted": bool}`

    `server` is the target of the client, without secrets; `tool` the definition as it was listed, without annotations.
    `annotations` are {} unless the server is trusted, since one that is not may claim anything. Spec: FEAT-012

    :ivar key: names the server among all others in this process, and may hold secrets; never shown. "" where only its
        name is known.
    :ivar identity: names it for other processes, too; see `targets.Target`.
    :ivar definition: the tool as it was listed, with annotations, as JSON.
    :ivar listed: whether its server lists the tool, so that there is more of it than a name.
    """

    def __init__(
        self, tool: Message, arguments: Message, trusted: bool, server: str, key: str = "", identity: str = ""
    ) -> None:
        self.key, self.identity = key, identity
        self.listed = "inputSchema" in tool
        self.definition = json.dumps(tool, sort_keys=True, default=repr)
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
    proposal = Proposal(tool, arguments, trusted, target.shown, target.key, target.identity)
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


def once(otherwise: Approve, remember: Union[bool, Path] = True) -> Approve:
    """Make an approver that asks `otherwise` about each tool until it agrees, and lets all later calls of it pass.

    :param remember: see `terminal`.
    """
    approvals = _approvals(remember)

    def approve(proposal: Proposal) -> Any:
        if approvals is not None and approvals.has(proposal):
            return True
        agreed = otherwise(proposal)
        if agreed and approvals is not None:
            approvals.add(proposal)
        return agreed

    return approve


class Approvals:
    """The tools of which calls were approved for good, by server and exact definition; a changed one is another tool.

    Kept are digests, with the server and the name of the tool beside them. A server of which only a name is known is
    never remembered, nor, in a file, is a tool that its server does not list.

    :param path: a JSON file that only its owner can read, for this and other processes; None for memory.
    """

    def __init__(self, path: Optional[Path] = None) -> None:
        self._path = None if path is None else os.path.expanduser(path)
        self._found: MutableMapping[str, Message] = {}  # each operation is one step, or locks the file
        if self._path is not None:
            from ..engines.oauth.tokens import FileStore

            self._found = FileStore(self._path, "approvals")

    def can_keep(self, proposal: Proposal) -> bool:
        """Say whether an approval of the tool would be remembered."""
        return self._digest(proposal) is not None

    def has(self, proposal: Proposal) -> bool:
        """Say whether calls of the tool were approved for good.

        :raises NotApproved: when others can write the file.
        """
        digest = self._digest(proposal)
        if digest is None:
            return False
        self._check()
        return digest in self._found

    def add(self, proposal: Proposal) -> None:
        """Remember that they were, if that can be; a file that cannot be written is told to the log."""
        digest = self._digest(proposal)
        if digest is not None:
            try:
                self._found[digest] = {"server": proposal["server"], "tool": proposal.name, "approved": time.time()}
            except OSError as problem:
                log.warning("The approval was not remembered: %s", problem)

    def _digest(self, proposal: Proposal) -> Optional[str]:
        if self._path is None:
            server = proposal.key
        else:
            server = proposal.identity if proposal.listed else ""
        if not server:
            return None
        return hashlib.sha256(json.dumps([server, proposal.definition]).encode()).hexdigest()

    def _check(self) -> None:
        if self._path is None or os.name != "posix":
            return
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return
        if found.st_mode & 0o022 or found.st_uid != os.geteuid():
            raise NotApproved(f"Others can write {self._path}, so its approvals count for nothing: chmod 600 it")


def _approvals(remember: Union[bool, Path]) -> Optional[Approvals]:
    if isinstance(remember, bool):
        return Approvals() if remember else None
    return Approvals(remember)


def terminal(
    *, read_only: bool = False, input: Any = None, output: Any = None, remember: Union[bool, Path] = True
) -> Approve:
    """Make an approver that asks a person: it shows the tool and the arguments, escaped and cut, and takes an answer.

    The answer is "y", "always" or, for anything else, no.

    "always" holds until the tool's definition changes, and for this one approver or the file in `remember`.

    :param remember: a JSON file for what was approved for good; True for memory alone, False for nothing.
    :param read_only: do not ask about tools that only read, if the server is trusted.
    :param input: a file to read answers from, by default standard input, if that is a terminal.
    :param output: a file to write to, by default standard error.
    :raises NotApproved: when nobody can be asked.
    """
    lock = threading.Lock()  # held while a person is asked: one question at a time
    approvals = _approvals(remember)

    def approve(proposal: Proposal) -> bool:
        if read_only and proposal.read_only:
            return True
        with lock:
            if approvals is not None and approvals.has(proposal):
                return True
            kept = approvals is not None and approvals.can_keep(proposal)
            always = "[a]lways this tool, " if kept else ""
            source, sink = input or sys.stdin, output or sys.stderr
            if sink is None or source is None or (input is None and not source.isatty()):
                raise NotApproved(f"The tool {proposal.name!r} needs approval, but there is no terminal to ask on")
            sink.write(_describe(proposal, _MOST_CHARACTERS, _MOST_ARGUMENTS))
            while True:
                sink.write(f"Allow it? [y]es, [N]o, {always}[s]how everything: ")
                sink.flush()
                answer = source.readline().strip().lower()
                if answer in ("s", "show"):
                    sink.write(_describe(proposal, None, None))
                    continue
                if approvals is not None and kept and answer in ("a", "always"):
                    approvals.add(proposal)
                    return True
                return answer in ("y", "yes")

    return approve


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
