"""Whole conversations, held word for word over every door.

A transcript has one statement a line, which indented lines continue:

    over memory stdio http sse      the transports it is held over
    # why                           a comment
    let name {...}                  JSON that `"$name"` stands for
    -> {...}                        what the client says; text that is not JSON goes out as it is
    <- {...}                        what the server says next
    <~ {...}                        the same, in any order among its neighbours

In what is expected `"..."` stands for any value, text that ends in `...` for any text that begins so, a member
`"...": "..."` for any further members, and `"$name"` for the value of that name, or for any value, which then has it.
In what is sent `"$name~"` is that text with one character changed. At the end nothing may have been said in addition.
"""

from __future__ import annotations

import json
import queue
from pathlib import Path
from typing import Any

import pytest

from tests import transports
from tests.transcripts.server import build

FOLDER = Path(__file__).resolve().parent / "transcripts"
OPENERS = {
    "memory": lambda: transports.Memory(build()),
    "stdio": lambda: transports.Stdio("-m", "minimcp", "run", str(FOLDER / "server.py")),
    "http": lambda: transports.Http(build()),
    "sse": lambda: transports.Sse(build()),
}


def statements(path: Path) -> list[tuple[str, str, int]]:
    """The statements of a transcript: the word before, the rest, the line number."""
    found: list[tuple[str, str, int]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith((" ", "\t")) and found:
            word, rest, first = found.pop()
            found.append((word, rest + " " + line.strip(), first))
        elif line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            found.append((word, rest.strip(), number))
    return found


CASES = [
    pytest.param(path, door, id=f"{path.stem}-{door}")
    for path in sorted(FOLDER.glob("*.txt"))
    for word, rest, _ in statements(path)[:1]
    for door in rest.split()
]


def matches(expected: Any, found: Any, names: dict[str, Any]) -> bool:
    """Say whether a value is what a transcript expects."""
    if isinstance(expected, str):
        if expected == "...":
            return True
        if expected.startswith("$"):
            return bool(names.setdefault(expected[1:], found) == found)
        if expected.endswith("..."):
            return isinstance(found, str) and found.startswith(expected[:-3])
    if type(expected) is not type(found):
        return False
    if isinstance(expected, dict):
        if "..." not in expected and expected.keys() != found.keys():
            return False
        return all(
            key in found and matches(value, found[key], names) for key, value in expected.items() if key != "..."
        )
    if isinstance(expected, list):
        return len(expected) == len(found) and all(matches(*pair, names) for pair in zip(expected, found))
    return bool(expected == found)


def filled(value: Any, names: dict[str, Any]) -> Any:
    """What a transcript sends, with its names replaced."""
    if isinstance(value, dict):
        return {key: filled(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [filled(part, names) for part in value]
    if isinstance(value, str) and value.startswith("$"):
        if value.endswith("~"):
            token = names[value[1:-1]]
            middle = len(token) // 2
            return token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
        return names[value[1:]]
    return value


@pytest.mark.parametrize("path, door", CASES)
def test_a_conversation_is_held_word_for_word(path, door):
    names: dict[str, Any] = {}
    expected: list[tuple[str, str, int]] = []
    talk = OPENERS[door]()
    try:
        for word, rest, number in [*statements(path)[1:], ("->", "", 0)]:
            if word in ("<-", "<~"):
                expected.append((word, rest, number))
                continue
            while expected:
                try:
                    message = talk.receive(10)
                except queue.Empty:
                    pytest.fail(f"the server said nothing instead of\n{missing(expected, path.name)}")
                hear(message, expected, names, path.name)
            if word == "let":
                name, _, value = rest.partition(" ")
                names[name] = filled(json.loads(value), names)
            elif rest:
                assert word == "->", f"{path.name}:{number}: {word}"
                talk.send(spoken(rest, names))
    finally:
        left = talk.close()
    assert not left, f"{path.name}: said in addition: {left}"


def spoken(text: str, names: dict[str, Any]) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_plain)
    except ValueError:
        return text
    return filled(value, names) if isinstance(value, (dict, list)) else text


def _plain(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(members)) < len(members):
        raise ValueError("a test of duplicate members goes out as it is written")
    return dict(members)


def hear(message: Any, expected: list[tuple[str, str, int]], names: dict[str, Any], where: str) -> None:
    """Cross the line off that a message is."""
    free = [line for line in expected if line[0] == "<~"]
    for line in expected[:1] if expected[0][0] == "<-" else free:
        if matches(json.loads(line[1]), message, trial := dict(names)):
            names.update(trial)
            expected.remove(line)
            return
    said = json.dumps(message, ensure_ascii=False)
    pytest.fail(f"the server said\n  {said}\ninstead of\n{missing(expected, where)}")


def missing(expected: list[tuple[str, str, int]], where: str) -> str:
    return "\n".join(f"  {where}:{number}: {rest}" for _, rest, number in expected)
