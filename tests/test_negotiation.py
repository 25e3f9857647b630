"""Which era and revision a server speaks: the probe, its outcomes and the way back to `initialize`."""

from __future__ import annotations

import threading

import pytest

import minimcp
from minimcp import Client
from tests.played import DISCOVERED, INITIALIZED, Fault, Scripted, Silence


def fault(code, data=None):
    def play(params, say):
        raise Fault(code, "no", data)

    return play


def silent(params, say):
    raise Silence


def initialized(version="2025-11-25"):
    return lambda params, say: {**INITIALIZED, "protocolVersion": version}


def test_a_modern_server_is_asked_what_it_is_and_nothing_else():
    server = Scripted()
    with Client(server) as client:
        assert client.protocol_version == "2026-07-28"
        assert client.capabilities == DISCOVERED["capabilities"]
    (probe,) = server.heard
    assert probe["method"] == "server/discover"
    assert set(probe["params"]) == {"_meta"}
    assert probe["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert probe["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {}


@pytest.mark.parametrize("code", [-32601, -32602, -32600, -32000, -32001, 1])
def test_any_error_that_is_not_a_modern_one_leads_to_initialize(code):
    server = Scripted(server_discover=fault(code), initialize=initialized())
    with Client(server) as client:
        assert client.protocol_version == "2025-11-25"
    methods = [message["method"] for message in server.heard]
    assert methods == ["server/discover", "initialize", "notifications/initialized"]
    assert server.heard[1]["params"]["protocolVersion"] == "2025-11-25"
    assert server.heard[1]["params"]["clientInfo"] == {"name": "minimcp", "version": minimcp.__version__}


def test_a_server_that_says_nothing_to_the_probe_is_legacy():
    server = Scripted(server_discover=silent, initialize=initialized("2024-11-05"))
    with Client(server, probe_timeout=0.1) as client:
        assert client.protocol_version == "2024-11-05"


def test_a_modern_server_that_is_slow_to_answer_the_probe_is_recognised():
    def ignore(params, say):
        server.prompt.add("server/discover")
        raise Silence

    server = Scripted(initialize=ignore)

    def slow(params, say):
        server.wait_for("initialize")
        return DISCOVERED

    server.methods["server/discover"] = slow
    with Client(server, probe_timeout=0.1, timeout=1.5) as client:
        assert client.protocol_version == "2026-07-28"


@pytest.mark.parametrize("mode", ["auto", "legacy", "2025-06-18"])
def test_initialize_is_never_cancelled(mode):
    server = Scripted(server_discover=fault(-32601), initialize=silent)
    server.prompt.add("server/discover")
    with pytest.raises(minimcp.Timeout, match="initialize"):
        Client(server, mode=mode, timeout=0.1).open()
    assert [message["method"] for message in server.heard][-1] == "initialize"
    assert not server.all("notifications/cancelled")


@pytest.mark.parametrize("code", [-32020, -32021])
def test_a_modern_error_never_leads_to_initialize(code):
    server = Scripted(server_discover=fault(code), initialize=initialized())
    with pytest.raises(minimcp.RemoteError) as caught:
        Client(server).open()
    assert caught.value.code == code
    assert not server.all("initialize")


def test_an_unsupported_version_is_answered_with_one_of_those_offered():
    server = Scripted(server_discover=fault(-32022, {"supported": ["2026-07-28", "2099-01-01"]}))
    server.methods["tools/list"] = lambda params, say: {"tools": []}
    with Client(server) as client:
        assert client.protocol_version == "2026-07-28"
        assert client.list_tools() == []
    server = Scripted(server_discover=fault(-32022, {"supported": ["2099-01-01"]}), initialize=initialized())
    with pytest.raises(minimcp.ProtocolError, match="No common revision"):
        Client(server).open()
    assert not server.all("initialize")
    server = Scripted(
        server_discover=fault(-32022, {"supported": ["2025-06-18"]}), initialize=initialized("2025-06-18")
    )
    with Client(server) as client:
        assert client.protocol_version == "2025-06-18"
    assert server.wait_for("initialize")["params"]["protocolVersion"] == "2025-06-18"


@pytest.mark.parametrize("versions", [["2099-01-01"], [1], []])
def test_a_discovery_without_a_usable_version_is_an_error(versions):
    server = Scripted(server_discover=lambda params, say: {**DISCOVERED, "supportedVersions": versions})
    with pytest.raises(minimcp.ProtocolError, match="No common revision"):
        Client(server).open()


@pytest.mark.parametrize("result", [{}, {"supportedVersions": "2026-07-28"}])
def test_a_server_that_answers_anything_with_nothing_is_legacy(result):
    server = Scripted(server_discover=lambda params, say: result, initialize=initialized())
    with Client(server) as client:
        assert client.protocol_version == "2025-11-25"


def test_a_revision_in_initialize_that_nobody_knows_ends_the_connection():
    server = Scripted(initialize=initialized("2099-01-01"))
    with pytest.raises(minimcp.ProtocolError, match="2099-01-01"):
        Client(server, mode="legacy").open()
    assert not server.all("notifications/initialized")


def test_a_pinned_revision_allows_nothing_else():
    server = Scripted(initialize=initialized("2025-03-26"))
    with Client(server, mode="2025-03-26") as client:
        assert client.protocol_version == "2025-03-26"
    assert not server.all("server/discover")
    assert [message["params"]["protocolVersion"] for message in server.all("initialize")] == ["2025-03-26"]
    with pytest.raises(minimcp.ProtocolError, match="2025-03-26, but mode='2025-06-18'"):
        Client(server, mode="2025-06-18").open()
    legacy = Scripted(server_discover=fault(-32601), initialize=initialized())
    for mode in ("modern", "2026-07-28"):
        with pytest.raises(minimcp.ProtocolError, match="does not speak 2026-07-28"):
            Client(legacy, mode=mode).open()
    assert [message["params"]["protocolVersion"] for message in server.all("initialize")] == [
        "2025-03-26",
        "2025-06-18",
    ]
    assert not legacy.all("initialize")
    with pytest.raises(ValueError, match="mode must be one of"):
        Client(server, mode="2026")


def test_a_saved_discovery_saves_the_question():
    server = Scripted(tools_list=lambda params, say: {"tools": []})
    with Client(server) as client:
        saved = client.discovery
    server.heard.clear()
    with Client(server, discovery=saved) as client:
        assert client.server_info == {"name": "scripted", "version": "0"}
        client.list_tools()
    assert [message["method"] for message in server.heard] == ["tools/list"]


def test_a_saved_discovery_of_a_legacy_server_saves_the_probe():
    server = Scripted(server_discover=fault(-32601), initialize=initialized("2025-06-18"))
    with Client(server) as client:
        saved = client.discovery
    server.heard.clear()
    with Client(server, discovery=saved) as client:
        assert client.protocol_version == "2025-06-18"
    assert [message["method"] for message in server.heard] == ["initialize", "notifications/initialized"]


def test_a_saved_discovery_that_is_no_longer_true_is_not_kept_to():
    legacy = Scripted(server_discover=fault(-32601), initialize=initialized("2025-06-18"))
    modern = Scripted(initialize=fault(-32601), tools_list=lambda params, say: {"tools": []})
    with Client(legacy) as one, Client(modern) as other:
        was_legacy, was_modern = one.discovery, other.discovery
    modern.heard.clear()
    with Client(modern, discovery=was_legacy) as client:
        assert client.protocol_version == "2026-07-28"
    assert [message["method"] for message in modern.heard] == ["initialize", "server/discover"]
    legacy.heard.clear()
    answers = iter([fault(-32022, {"supported": ["2025-06-18"]})])
    legacy.methods["tools/list"] = lambda params, say: next(answers, lambda *_: {"tools": []})(params, say)
    with Client(legacy, discovery=was_modern) as client:
        assert client.list_tools() == []
        assert client.protocol_version == "2025-06-18"


@pytest.mark.parametrize("second", [fault(-32022, {"supported": ["2026-07-28"]}), fault(-32601), lambda p, s: {}])
def test_a_server_that_offered_a_modern_revision_is_never_sent_initialize(second):
    probes = iter([fault(-32022, {"supported": ["2026-07-28"]})])
    server = Scripted(initialize=initialized(), tools_list=lambda params, say: {"tools": []})
    server.methods["server/discover"] = lambda params, say: next(probes, second)(params, say)
    with Client(server) as client:
        assert client.protocol_version == "2026-07-28" and client.list_tools() == []
    assert [message["method"] for message in server.heard] == ["server/discover", "server/discover", "tools/list"]


def test_a_ping_that_comes_before_the_answer_to_initialize_is_answered():
    def greet(params, say):
        say({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        assert server.wait_for(None) == {"jsonrpc": "2.0", "id": "p", "result": {}}
        return {**INITIALIZED}

    server = Scripted(initialize=greet)
    with Client(server, mode="legacy") as client:
        assert client.protocol_version == "2025-11-25"


def test_a_server_that_was_exchanged_for_a_legacy_one_is_negotiated_with_again():
    server = Scripted(tools_list=lambda params, say: {"tools": []}, initialize=initialized())
    with Client(server) as client:
        assert client.protocol_version == "2026-07-28"
        server.methods["server/discover"] = fault(-32601)
        modern, calls = fault(-32022, {"supported": []}), []

        def once(params, say):
            calls.append(params)
            return modern(params, say) if len(calls) == 1 else {"tools": []}

        server.methods["tools/list"] = once
        assert client.list_tools() == []
        assert client.protocol_version == "2025-11-25"


def test_ids_are_never_used_twice():
    server = Scripted(server_discover=fault(-32601), initialize=initialized())
    server.methods["tools/list"] = lambda params, say: {"tools": []}
    with Client(server, cache=False) as client:
        for _ in range(5):
            client.list_tools()
    ids = [message["id"] for message in server.heard if "id" in message]
    assert len(set(ids)) == len(ids) == 7


def test_only_one_thread_negotiates():
    server = Scripted(tools_list=lambda params, say: {"tools": []})
    client = Client(server)
    threads = [threading.Thread(target=client.list_tools) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    client.close()
    assert len(server.all("server/discover")) == 1
