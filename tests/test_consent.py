"""Consent before tool calls: what is asked, what a policy lets pass, and what a terminal shows."""

from __future__ import annotations

import io

import pytest

import minimcp
from minimcp import Client, NotApproved, Server, consent

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


def proposal(name="remove", arguments=None, annotations=None, trusted=False, where="s", **tool):
    tool = {"name": name, "inputSchema": {}, "annotations": annotations or {}, **tool}
    return consent.Proposal(tool, arguments or {}, trusted, where)


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
