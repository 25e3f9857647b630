"""Consent before tool calls: what is asked, what a policy lets pass, and what a terminal shows."""

from __future__ import annotations

import io
import json
import logging
import os
import stat
import sys
import tempfile
import threading

import pytest

import minimcp
from minimcp import AuthorizationError, Client, NotApproved, Sandbox, Server, consent

HINT = {"readOnlyHint": True, "title": "Harmless"}


def server(calls):
    made = Server("s", "1")

    @made.tool(annotations=HINT)
    def look(what: str = "x") -> str:
        calls.append(what)
        return "seen"

    @made.tool(title="Remove it")
    def remove(path: str) -> str:
        """Remove a file."""
        calls.append(path)
        return "gone"

    return made


@pytest.mark.parametrize("mode", ["2025-11-25", "2026-07-28"])
def test_a_call_that_is_not_approved_never_reaches_the_server(mode):
    calls, asked = [], []

    def approve(proposal):
        asked.append(proposal)
        return proposal.name == "look"

    with Client(server(calls), mode=mode, approve=approve) as client:
        assert client.call_tool("look", what="y").text == "seen"
        with pytest.raises(NotApproved, match="The call of the tool 'remove' was not approved") as caught:
            client.call_tool("remove", path="/")
        assert caught.value.retry == "never"
        with pytest.raises(NotApproved):
            client.start_tool("remove", path="/")
    assert calls == ["y"]
    assert asked[1]["arguments"] == {"path": "/"} and asked[1]["tool"]["description"] == "Remove a file."
    assert asked[1]["server"].startswith("memory:")


def test_annotations_are_seen_only_of_a_trusted_server():
    asked = []
    for trusted in (False, True):
        with Client(server([]), approve=asked.append, trusted=trusted) as client, pytest.raises(NotApproved):
            client.call_tool("look")
    assert [each["annotations"] for each in asked] == [{}, HINT]
    assert [each["trusted"] for each in asked] == [False, True]
    assert [each.read_only for each in asked] == [False, True]
    assert all("annotations" not in each["tool"] for each in asked)


@pytest.mark.parametrize("hint", ["true", 1, None, {}])
def test_only_true_is_a_hint(hint):
    tool = {"name": "t", "inputSchema": {}, "annotations": {"readOnlyHint": hint}}
    assert not consent.Proposal(tool, {}, True, "s").read_only
    assert consent.Proposal({"name": "t", "annotations": 7}, {}, True, "s")["annotations"] == {}


def test_what_was_approved_is_what_is_called():
    calls = []

    def approve(proposal):
        proposal["arguments"]["what"] = "changed"
        return True

    with Client(server(calls), approve=approve) as client:
        client.call_tool("look", what="asked")
    assert calls == ["asked"]


def test_a_tool_that_is_not_listed_is_asked_about_too():
    asked, seen = [], []
    with Client(server([]), approve=asked.append, trace=seen.append) as client, pytest.raises(NotApproved):
        client.call_tool("hidden", {"a": 1})
    assert asked[0]["tool"] == {"name": "hidden"} and asked[0]["arguments"] == {"a": 1}
    sent = [each["message"]["method"] for each in seen if each["direction"] == "sent"]
    assert sent == ["server/discover", "tools/list"]


def test_an_approver_that_fails_approves_nothing():
    calls = []

    def approve(proposal):
        raise RuntimeError("broken")

    with Client(server(calls), approve=approve) as client, pytest.raises(RuntimeError):
        client.call_tool("look")
    assert calls == []


def proposal(name="remove", arguments=None, annotations=None, trusted=False, where="s", identity="", **tool):
    tool = {"name": name, "inputSchema": {}, "annotations": annotations or {}, **tool}
    return consent.Proposal(tool, arguments or {}, trusted, where, where, identity)


def test_a_policy_lets_named_and_read_only_tools_pass_and_hands_on_the_rest():
    others = []
    policy = consent.allow("remove", read_only=True, otherwise=others.append)
    assert policy(proposal())
    assert policy(proposal("look", annotations=HINT, trusted=True))
    assert not policy(proposal("look", annotations=HINT))
    assert not policy(proposal("other", trusted=True))
    assert [each.name for each in others] == ["look", "other"]
    assert not consent.allow("a")(proposal("b"))
    assert not consent.allow("a")(proposal("look", annotations=HINT, trusted=True))


def asking(answers, **options):
    shown = io.StringIO()
    return consent.terminal(input=io.StringIO(answers), output=shown, **options), shown


@pytest.mark.parametrize("answer", ["y\n", "Y\n", "yes\n", "a\n", " always \n"])
def test_yes_in_a_terminal_is_yes(answer):
    approve, _ = asking(answer)
    assert approve(proposal()) is True


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "no\n", "yep\n", "j\n"])
def test_anything_else_is_no(answer):
    approve, _ = asking(answer)
    assert approve(proposal()) is False


def test_a_terminal_shows_the_tool_and_its_arguments():
    approve, shown = asking("n\n")
    approve(
        proposal(arguments={"path": "/srv", "n": [1]}, title="Remove it", description="Remove\na file.", where="app")
    )
    assert shown.getvalue() == (
        "\nThe tool remove of app\n"
        "  it says: Remove it\n"
        "  it says: Remove\\na file.\n"
        "is to be called with\n"
        '  path = "/srv"\n'
        "  n = [1]\n"
        "Allow it? [y]es, [N]o, [a]lways this tool, [s]how everything: "
    )


def test_what_is_shown_can_play_no_tricks():
    approve, shown = asking("n\n")
    tricks = "\x1b[2J\r\x9b31m\u202e\u200b\x07"
    approve(proposal(name="t" + tricks, arguments={tricks: tricks}, description=tricks, where=tricks))
    text = shown.getvalue()
    assert all(each.isprintable() or each == "\n" for each in text)
    assert "\\u001b[2J\\u000d\\u009b31m\\u202e\\u200b\\u0007" in text


def test_long_values_are_cut_until_everything_is_asked_for():
    approve, shown = asking("s\ny\n")
    arguments = {"long": "x" * 5000, **{f"a{number}": number for number in range(50)}}
    assert approve(proposal(arguments=arguments))
    first, _, second = shown.getvalue().partition("Allow it?")
    assert "... [5002 characters in all]" in first and "... and 21 more arguments" in first and "x" * 401 not in first
    assert "x" * 5000 in second and "a49 = 49" in second


def test_always_holds_for_one_definition_of_one_tool_of_one_server():
    approve, shown = asking("always\nn\nn\nn\n")
    assert approve(proposal())
    assert approve(proposal(arguments={"path": "/other"}))
    assert not approve(proposal("other"))
    assert not approve(proposal(where="another"))
    assert not approve(proposal(description="Now something else"))
    assert approve(proposal())
    assert shown.getvalue().count("Allow it?") == 4


def test_read_only_tools_are_waved_through_only_by_choice_and_of_trusted_servers():
    harmless = proposal("look", annotations=HINT, trusted=True)
    assert asking("", read_only=True)[0](harmless)
    assert not asking("")[0](harmless)
    assert not asking("", read_only=True)[0](proposal("look", annotations=HINT))


def test_without_a_terminal_nobody_is_asked(monkeypatch):
    for stdin in (io.StringIO("y\n"), None):
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(NotApproved, match="'remove' needs approval, but there is no terminal to ask on"):
            consent.terminal()(proposal())


def test_it_is_there_for_whoever_imports_the_package():
    assert minimcp.consent is consent and "consent" in minimcp.__all__


# What is remembered


def counting(answers):
    asked = []

    def approve(proposal):
        asked.append(proposal)
        return answers.pop(0)

    return approve, asked


def test_a_tool_is_asked_about_until_it_is_approved_and_then_not_again():
    approve, asked = counting([False, True])
    once = consent.once(approve)
    assert [bool(once(proposal(arguments={"path": path}))) for path in "abcd"] == [False, True, True, True]
    assert len(asked) == 2


CHANGES = [
    {"description": "Something else"},
    {"title": "Remove"},
    {"inputSchema": {"type": "object"}},
    {"outputSchema": {}},
    {"annotations": {"readOnlyHint": True}},
    {"icons": []},
    {"_meta": {"x": 1}},
    {"name": "Remove"},
    {"where": "t", "identity": "https://t.example/mcp"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
@pytest.mark.parametrize("kept", ["memory", "file"])
def test_a_changed_definition_is_asked_about_again(tmp_path, change, kept):
    approve, asked = counting([True] * 9)
    once = consent.once(approve, remember=True if kept == "memory" else tmp_path / "approvals.json")
    known = {"identity": "https://s.example/mcp"}
    assert once(proposal(**known)) and once(proposal(**known)) and len(asked) == 1
    assert once(proposal(**{**known, **change})) and len(asked) == 2
    # The former one is remembered all the same.
    assert once(proposal(**known)) and len(asked) == 2


def test_a_file_remembers_for_later_processes_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "folder" / "approvals.json"
    known = proposal(where="https://s.example/mcp", identity="https://s.example/mcp?key=secret")
    assert asking("always\n", remember=path)[0](known)
    approve, shown = asking("", remember=str(path))
    assert approve(known) and shown.getvalue() == ""
    assert consent.once(lambda proposal: False, remember=path)(known)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "secret" not in path.read_text()
    (digest, entry), *others = json.loads(path.read_text()).items()
    assert others == [] and len(digest) == 64
    assert entry["tool"] == "remove" and entry["server"] == "https://s.example/mcp"
    # Without its entry it is asked about again.
    path.write_text("{}")
    assert not asking("n\n", remember=path)[0](known)


def test_nothing_is_remembered_where_that_was_chosen():
    approve, shown = asking("always\ny\n", remember=False)
    assert not approve(proposal()) and approve(proposal())
    assert "lways" not in shown.getvalue()
    ask, asked = counting([True, True])
    once = consent.once(ask, remember=False)
    assert once(proposal()) and once(proposal()) and len(asked) == 2


@pytest.mark.parametrize("kept", ["memory", "file"])
def test_a_server_of_which_only_a_name_is_known_is_never_remembered(tmp_path, kept):
    remember = True if kept == "memory" else tmp_path / "approvals.json"
    tool = {"name": "t", "inputSchema": {}}
    named = consent.Proposal(tool, {}, False, "files")
    numbered = consent.Proposal(tool, {}, False, "memory:1", "memory:1")
    for each in [named, numbered] if kept == "file" else [named]:
        approve, asked = counting([True, True])
        once = consent.once(approve, remember=remember)
        assert once(each) and once(each) and len(asked) == 2
        approve, shown = asking("always\ny\n", remember=remember)
        assert not approve(each) and approve(each) and "lways" not in shown.getvalue()
    assert not (tmp_path / "approvals.json").exists()


def test_a_file_never_remembers_a_tool_of_which_there_is_but_a_name(tmp_path):
    approve, asked = counting([True] * 3)
    hidden = consent.Proposal({"name": "hidden"}, {}, False, "s", "s", "https://s.example/mcp")
    once = consent.once(approve, remember=tmp_path / "approvals.json")
    assert once(hidden) and once(hidden) and len(asked) == 2
    assert not (tmp_path / "approvals.json").exists()


def identity(target, **options):
    return Client(target, **options).target.identity


@pytest.mark.parametrize(
    "url", ["https://s.example/mcp", "HTTPS://s.example/mcp?k=1", "http://127.0.0.1:8000/mcp", "http://[::1]/mcp"]
)
def test_a_url_names_a_server_where_nobody_on_the_way_can_be_it(url):
    assert identity(url) == url


@pytest.mark.parametrize(
    "make",
    [
        lambda: "http://s.example/mcp",
        lambda: "http://10.0.0.1/mcp",
        lambda: server([]),
        lambda: server([]).wsgi,
        lambda: ["/no/such/program"],
    ],
)
def test_nothing_lasting_names_these(make):
    assert identity(make()) == ""


def test_a_process_is_named_by_its_program_arguments_folder_and_environment(tmp_path, monkeypatch):
    command = [sys.executable, "server.py"]
    found = {identity(command), identity(command, env={"A": "1"}), identity(command, cwd=str(tmp_path))}
    assert identity(command) in found
    monkeypatch.chdir(tmp_path.parent)
    found |= {identity(command), identity([sys.executable, "other.py"])}
    assert len(found) == 5 and "" not in found
    if os.name != "posix":
        return
    assert identity(command, sandbox=Sandbox(open_files=99)) not in found
    # The same name of a program is another program on another PATH.
    for folder in ("a", "b"):
        program = tmp_path / folder / "serve"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    first, second = (identity(["serve"], env={"PATH": str(tmp_path / folder)}) for folder in "ab")
    assert first != second and str(tmp_path / "a" / "serve") in first


def test_a_client_asks_once_about_a_tool_of_its_server():
    approve, asked = counting([True] * 5)
    once, calls = consent.once(approve), []
    with Client(server(calls), approve=once) as client:
        for path in "ab":
            client.call_tool("remove", path=path)
        client.call_tool("look")
    assert calls == ["a", "b", "x"] and [each.name for each in asked] == ["remove", "look"]
    # Another server of the same name is another server.
    with Client(server(calls), approve=once) as client:
        client.call_tool("remove", path="c")
    assert len(asked) == 3


def test_a_client_of_a_process_finds_what_was_approved_earlier(tmp_path):
    file = tmp_path / "s.py"
    text = "from minimcp import Server\nserver = Server('s')\nserver.tool(lambda: 'x', 't', description={!r})\n"
    env = {"PYTHONPATH": os.path.dirname(os.path.dirname(minimcp.__file__))}
    approve, asked = counting([True] * 5)
    for says, count in (("One", 1), ("One", 1), ("Two", 2), ("One", 2)):
        file.write_text(text.format(says) + "server.run()\n")
        once = consent.once(approve, remember=tmp_path / "approvals.json")
        with Client([sys.executable, str(file)], env=env, approve=once) as client:
            assert client.call_tool("t").text == "x"
        assert len(asked) == count


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_approves_nothing(tmp_path, mode):
    path = tmp_path / "approvals.json"
    known = proposal(identity="https://s.example/mcp")
    once = consent.once(lambda proposal: True, remember=path)
    assert once(known)
    path.chmod(mode)
    with pytest.raises(NotApproved, match=f"Others can write {path}.*chmod 600"):
        once(known)


def test_a_file_of_something_else_is_left_as_it_is(tmp_path):
    path = tmp_path / "approvals.json"
    path.write_text("my notes")
    path.chmod(0o600)
    once = consent.once(lambda proposal: True, remember=path)
    with pytest.raises(AuthorizationError, match="is not a file of approvals"):
        once(proposal(identity="https://s.example/mcp"))
    assert path.read_text() == "my notes"


def test_an_approval_that_cannot_be_written_holds_this_once(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    once = consent.once(lambda proposal: True, remember=tmp_path / "approvals.json")
    monkeypatch.setattr(tempfile, "mkstemp", full)
    with caplog.at_level(logging.WARNING, "minimcp"):
        assert once(proposal(identity="https://s.example/mcp"))
    assert "The approval was not remembered: [Errno 28]" in caplog.text


def test_many_threads_approve_into_one_file(tmp_path):
    path = tmp_path / "approvals.json"
    once = consent.once(lambda proposal: True, remember=path)

    def add(number):
        for place in range(5):
            once(proposal(f"t{number}-{place}", identity="https://s.example/mcp"))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(json.loads(path.read_text())) == 20
