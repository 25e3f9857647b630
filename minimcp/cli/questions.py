"""Questions of a server at the terminal: forms, asked field by field, and pages to visit.

Spec: FEAT-192, FEAT-200, FEAT-205, FEAT-211 to FEAT-215
"""

from __future__ import annotations

import datetime
import os
import select
import sys
from typing import Any, Optional, Union
from urllib.parse import urlsplit

from ..client.answers import Question
from ..engines.errors import InvalidArguments, printable
from ..engines.schema import text as texts
from ..engines.schema.values import ConversionError

Message = dict[str, Any]

_MOST_SHOWN = 100
_LOOK_S = 0.5  # between two looks for a signal while a person thinks
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Terminal:
    """Puts questions to the person at a terminal; an instance serves as `Client(elicit=...)`.

    :param where: the target as the user typed it, shown beside the name that the server gives itself.
    :param input: a file to read answers from; `output` one to write to.
    """

    def __init__(self, where: str, input: Any = None, output: Any = None) -> None:
        self._where = where
        self._input = input
        self._output = output

    def __call__(self, question: Question) -> Message:
        """Put a question to the person and return an ElicitResult."""
        self._say(f"\n{printable(question.server, 100)} ({printable(self._where, 300)}) asks: ", end="")
        self._say(printable(question.message, 2000))
        try:
            return self._page(question.url) if question.url is not None else self._form(question)
        except EOFError:
            self._say()
            return {"action": "cancel"}

    def _form(self, question: Question) -> Message:
        fields = list(question.fields.items())
        if len(fields) == 1 and fields[0][1].get("type") == "boolean":
            return self._yes_or_no(question, *fields[0])
        answer = self._choose("Answer? [Y]es, [d]ecline, [c]ancel: ", "ydc", "y")
        if answer != "y":
            return {"action": "decline" if answer == "d" else "cancel"}
        if not fields:
            return {"action": "accept", "content": {}}
        self._say("(Enter accepts the value in brackets, Ctrl-D cancels.)")
        required = question["requestedSchema"].get("required")
        content: Message = dict(question.defaults)
        while True:
            for name in question.fields:
                needed = isinstance(required, list) and name in required
                value = self._field(question, name, content.get(name), needed)
                if value is None:
                    content.pop(name, None)
                else:
                    content[name] = value
            try:
                question.check(content)
            except InvalidArguments as problem:
                self._say(f"The answers are not valid: {printable(str(problem), 500)}")
                continue
            answer = self._choose("Send it? [y]es, [e]dit, [d]ecline, [c]ancel: ", "yedc")
            if answer == "y":
                return {"action": "accept", "content": content}
            if answer != "e":
                return {"action": "decline" if answer == "d" else "cancel"}

    def _yes_or_no(self, question: Question, name: str, field: Message) -> Message:
        """Ask a form that is one yes or no."""
        title = field.get("title") if isinstance(field.get("title"), str) else name
        default = question.defaults.get(name)
        marks = "[Y]es, [n]o" if default is True else "[y]es, [N]o" if default is False else "[y]es, [n]o"
        letter = {True: "y", False: "n"}.get(default, "") if isinstance(default, bool) else ""
        answer = self._choose(f"  {printable(str(title), 200)}? {marks}, [d]ecline, [c]ancel: ", "yndc", letter)
        if answer in "dc":
            return {"action": "decline" if answer == "d" else "cancel"}
        return {"action": "accept", "content": {name: answer == "y"}}

    def _field(self, question: Question, name: str, current: Any, required: bool) -> Any:
        """Ask for one field and return its value, or None to leave it out."""
        field = question.fields[name]
        title = field.get("title") if isinstance(field.get("title"), str) else name
        choices, several = _choices(field)
        self._say(f"  {printable(str(title), 200)}", end="")
        if isinstance(field.get("description"), str):
            self._say(f" - {printable(field['description'], 500)}", end="")
        self._say("" if required else " (optional)")
        for number, (value, label) in enumerate(choices[:_MOST_SHOWN], 1):
            shown = printable(label, 200) if label == value else f"{printable(label, 200)} ({printable(value, 100)})"
            self._say(f"    {number}. {shown}")
        if len(choices) > _MOST_SHOWN:
            self._say(f"    ... and {len(choices) - _MOST_SHOWN} more")
        kind = "numbers, with commas" if several else "a number" if choices else _kind(field)
        while True:
            default = "" if current is None else f" [{printable(_shown(current), 200)}]"
            text = self._read(f"  {kind}{default}: ")
            if not text:
                if current is not None or not required:
                    return current
                self._say("    This field is required.")
                continue
            try:
                value = _value(name, text, field, choices, several)
                question.check({name: value}, name)
                return value
            except (InvalidArguments, ValueError) as problem:
                self._say(f"    {printable(str(problem), 300)}")

    def _page(self, url: str) -> Message:
        """Show a page's address and warnings, and open it only with consent. Spec: FEAT-212, FEAT-213"""
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            parts, host = urlsplit(""), ""
        if parts.scheme not in ("http", "https") or not host:
            self._say(f"  {printable(url, 500)} is not an http(s) URL; declined.")
            return {"action": "decline"}
        self._say(f"  the page: {printable(url)}\n  its host: {printable(host)}")
        for warning in _warnings(parts, host):
            self._say(f"  Warning: {warning}")
        answer = self._choose("Visit it? [o]pen in the browser, [m]yself, [d]ecline, [c]ancel: ", "omdc")
        if answer in "dc":
            return {"action": "decline" if answer == "d" else "cancel"}
        if answer == "o" and not _open(url):
            self._say("  No browser is available; open the page yourself.")
        return {"action": "accept"}

    def _choose(self, prompt: str, letters: str, default: str = "") -> str:
        while True:
            answer = self._read(prompt).lower()[:1] or default
            if answer and answer in letters:
                return answer

    def _read(self, prompt: str) -> str:
        self._say(prompt, end="")
        source = self._input or sys.stdin
        if os.name == "posix" and source.isatty():
            # A Ctrl-C that comes a moment before the read begins would not end it.
            while not select.select([source], [], [], _LOOK_S)[0]:
                pass
        line = source.readline()
        if not line:
            raise EOFError
        return str(line).strip()

    def _say(self, text: str = "", end: str = "\n") -> None:
        output = self._output or sys.stderr
        output.write(text + end)
        output.flush()


# Answers to a whole question, which need no field.
ACTIONS = ("accept", "decline", "cancel")


def from_words(question: Question, words: dict[str, str], action: str = "") -> Union[Message, str]:
    """Return the answer to a form that was given beforehand, or the text that says what is missing.

    :param words: the values of fields, as they are typed.
    :param action: one of ACTIONS for a question that no word is about, or "".
    """
    asked = f"the server asks: {printable(question.message, 500)}"
    if action in ("decline", "cancel") and not words.keys() & question.fields.keys():
        return {"action": action}
    if question.url is not None:
        return f"{asked}; open {printable(question.url, 1000)} in a browser, or run this on a terminal"
    required = question["requestedSchema"].get("required")
    content: Message = dict(question.defaults)
    missing = []
    for name, field in question.fields.items():
        choices, several = _choices(field)
        if name in words:
            try:
                content[name] = _value(name, words[name], field, choices, several)
                question.check({name: content[name]}, name)
            except (InvalidArguments, ValueError) as problem:
                given = f"{printable(name, 100)}={printable(words[name], 100)}"
                return f"{asked}; --answer {given} does not fit: {printable(str(problem), 300)}"
        elif name not in content and isinstance(required, list) and name in required:
            likely = "|".join(value for value, _ in choices[:10]) or _kind(field).replace("y or n", "yes|no")
            missing.append(f"--answer {printable(name, 100)}={printable(likely, 200)}")
    if missing or not (action or words.keys() & question.fields.keys()):
        optional = [f"--answer {printable(name, 100)}=..." for name in list(question.fields)[:10]]
        ways = " ".join(missing) or f"{', '.join(['--answer accept', *optional])} or --answer decline"
        told = f"{asked}; answer with {ways}"
        strange = [printable(name, 100) for name in words if name not in question.fields]
        return f"{told}; it has no field {', '.join(strange)}" if strange else told
    return {"action": "accept", "content": content}


def _choices(field: Message) -> tuple[list[tuple[str, str]], bool]:
    """The choices of a field as pairs of value and label, and whether several may be chosen.

    Spec: FEAT-188 to FEAT-191
    """
    items = field.get("items")
    several = isinstance(items, dict)
    source = items if isinstance(items, dict) else field
    titled = source.get("anyOf") or source.get("oneOf")
    if isinstance(titled, list):
        found = [(str(each["const"]), str(each.get("title", each["const"]))) for each in titled if _is_choice(each)]
        return found, several
    names = source.get("enumNames")
    listed = [str(value) for value in source["enum"]] if isinstance(source.get("enum"), list) else []
    labels = names if isinstance(names, list) and len(names) == len(listed) else listed
    return [(value, str(label)) for value, label in zip(listed, labels)], several


def _is_choice(value: Any) -> bool:
    return isinstance(value, dict) and "const" in value


def _value(name: str, text: str, field: Message, choices: list[tuple[str, str]], several: bool) -> Any:
    if several:
        return [_chosen(part.strip(), choices) for part in text.split(",") if part.strip()]
    if choices:
        return _chosen(text, choices)
    if field.get("type") == "boolean":
        known = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}
        if text.lower() not in known:
            raise ValueError("write yes or no")
        return known[text.lower()]
    _check_date(text, str(field.get("format")))
    try:
        return texts.convert(text, field, field)
    except ConversionError as problem:
        raise ValueError(f"{name} {problem}") from None


def _check_date(text: str, form: str) -> None:
    """Check a date or a time, for which a server may have no patience.

    :raises ValueError: with how it is written.
    """
    example = {"date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z"}.get(form)
    if example is not None:
        read = datetime.date.fromisoformat if form == "date" else datetime.datetime.fromisoformat
        try:
            read(text.replace("Z", "+00:00"))
        except ValueError:
            raise ValueError(f"a {form} is written like {example}") from None


def _chosen(text: str, choices: list[tuple[str, str]]) -> str:
    """A choice by its number, its value or its label."""
    if text.isdecimal() and 0 < int(text[:9]) <= len(choices):
        return choices[int(text[:9]) - 1][0]
    for value, label in choices:
        if text in (value, label):
            return value
    raise ValueError(f"one of 1 to {len(choices)}")


def _kind(field: Message) -> str:
    if field.get("type") == "boolean":
        return "y or n"
    kind = str(field.get("format") or field.get("type") or "text")
    limits = [f"{word} {field[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in field]
    return printable(" ".join(["text" if kind == "string" else kind, *limits]), 100)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "y" if value else "n"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _warnings(parts: Any, host: str) -> list[str]:
    """Warnings about an address that may mislead. Spec: FEAT-215"""
    found = []
    if "xn--" in host or not host.isascii():
        found.append("the host name has letters that can look like others")
    if parts.username is not None:
        found.append('the part before "@" is not the host name')
    if parts.scheme == "http" and host not in _LOCAL:
        found.append("the connection is not encrypted")
    return found


def _open(url: str) -> bool:
    import webbrowser

    try:
        return webbrowser.open(url)
    except Exception:
        return False


def make(where: str) -> Optional[Terminal]:
    """Return a terminal to ask on, or None where there is none."""
    interactive = sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()
    return Terminal(where) if interactive else None
