"""The configuration of a gateway: what is read, what is refused and with which words, and what two differ in."""

from __future__ import annotations

import json
import os
import re
import sys

import pytest

from minimcp.auth import Jwt, Keys, RemoteUser, Rules
from minimcp.client import targets
from minimcp.gateway import config, gateway_options
from minimcp.gateway.config import Filter, UpstreamSettings, diff, read
from minimcp.server.names import slug

SECRET = "hunter2-is-secret"


@pytest.fixture(autouse=True)
def _variables(monkeypatch):
    monkeypatch.setenv("TOKEN", SECRET)
    for name in ("NOT_SET", "MINIMCP_SECRET"):
        monkeypatch.delenv(name, raising=False)


def server(**entry):
    """The settings of a server with this entry."""
    entry = (
        entry if entry.keys() & {"url", "command", "replicas", "serverUrl", "httpUrl"} else {"command": "x", **entry}
    )
    return read({"mcpServers": {"one": entry}}).upstreams["one"]


def options(**given):
    """The options of a gateway."""
    return read({"mcpServers": {"one": {"command": "x"}}, "gateway": given}).options


def refused(source):
    """The message with which a configuration is refused, without a variable in it."""
    with pytest.raises(ValueError) as caught:
        read(source)
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def file(tmp_path, text, name="gateway.json"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# What is read


def test_the_file_of_a_host_is_read_as_it_is(tmp_path):
    text = """{ // of an editor
        "mcpServers": {
            "time": {"type": "stdio", "command": "uvx", "args": ["mcp-server-time"], "env": {}, "alwaysAllow": ["now"]},
            "docs": {"type": "http", "url": "https://docs.example/mcp", "headers": {"A": "Bearer ${TOKEN}"},
                     "description": "Pages", "autoApprove": [], "disabled": true,},
        },
    }"""
    found = read(file(tmp_path, text))
    assert found.path == str(tmp_path / "gateway.json") and list(found.upstreams) == ["time", "docs"]
    assert found.upstreams["time"] == UpstreamSettings(
        "time",
        ({"type": "stdio", "command": "uvx", "args": ["mcp-server-time"], "env": {}},),
        prefix="time",
        uri_prefix="time",
        fingerprint=found.upstreams["time"].fingerprint,
    )
    # A client replaces the variable, so that no secret stands in settings.
    assert found.upstreams["docs"].entries[0]["headers"] == {"A": "Bearer ${TOKEN}"}
    assert found.upstreams["docs"].disabled and not found.upstreams["time"].disabled
    assert found.options["host"] == "127.0.0.1" and found.options["port"] == 8000 and found.options["auth"] is None


def test_the_file_of_another_host_has_servers(tmp_path):
    text = '{"inputs": [], "servers": {"web": {"url": "http://h/mcp", "envFile": ".env"}}}'
    found = read(str(file(tmp_path, text)))
    assert found.upstreams["web"].entries == ({"url": "http://h/mcp"},)
    assert found.notes == ("The server 'web': envFile is not read; name its variables in env",)


def test_addresses_and_lists_of_tools_as_some_hosts_write_them():
    assert server(serverUrl="https://h/").entries == server(httpUrl="https://h/").entries == ({"url": "https://h/"},)
    assert server(disabledTools=["a"], excludeTools=["b"]).tools == Filter(("*",), ("a", "b"))
    assert server(includeTools=["a"]).tools == server(tools=["a"]).tools == Filter(("a",))
    assert server(tools={"deny": ["a*"]}, disabledTools=["b"]).tools == Filter(("*",), ("a*", "b"))
    assert server(enabled=False).disabled and not server(enabled=True).disabled


def test_every_option_of_a_server_has_its_place():
    entry = {
        "url": "https://h/mcp",
        "prefix": "fs",
        "mode": "legacy",
        "timeout": 30,
        "maxTimeout": 90.5,
        "connectTimeout": 1,
        "concurrency": 5,
        "sessions": "principal",
        "maxSessions": 2,
        "idle": 60,
        "trusted": True,
        "disabled": False,
        "credentials": {"bearer": "${TOKEN}"},
        "forwardHeaders": ["X-Tenant"],
        "tools": {"allow": ["read_*"], "deny": ["write_*"]},
        "resources": {"allow": []},
        "prompts": ["p"],
        "expectTools": ["read_file"],
        "probe": 0,
    }
    found = server(**entry)
    assert found == UpstreamSettings(
        name="one",
        entries=({"url": "https://h/mcp"},),
        prefix="fs",
        uri_prefix="fs",
        mode="legacy",
        timeout_s=30.0,
        max_timeout_s=90.5,
        connect_timeout_s=1.0,
        concurrency=5,
        sessions="principal",
        max_sessions=2,
        idle_s=60.0,
        trusted=True,
        disabled=False,
        credentials={"bearer": SECRET},
        forward_headers=("X-Tenant",),
        tools=Filter(("read_*",), ("write_*",)),
        resources=Filter(()),
        prompts=Filter(("p",)),
        expect_tools=("read_file",),
        probe_s=0.0,
        fingerprint=found.fingerprint,
    )
    assert server(timeout=900).max_timeout_s == 900.0 and server(timeout=5).max_timeout_s == 600.0


def test_null_is_an_option_that_is_not_given():
    assert server(command="x", prefix=None, timeout=None, tools=None, env=None, replicas=None) == server()
    assert read({"mcpServers": {}, "gateway": None}).options == read({"mcpServers": {}}).options
    assert options(publicUrl=None, port=None)["port"] == 8000


def test_replicas_share_headers_and_variables():
    replicas = [{"url": "http://a/"}, {"url": "http://b/", "headers": {"X": "2"}}, {"command": "c", "env": {"A": "3"}}]
    found = server(replicas=replicas, headers={"X": "1", "Y": "1"}, type="http", env={"A": "1", "B": "1"}, cwd="/")
    assert [dict(sorted(each.items())) for each in found.entries] == [
        {"headers": {"X": "1", "Y": "1"}, "type": "http", "url": "http://a/"},
        {"headers": {"X": "2", "Y": "1"}, "type": "http", "url": "http://b/"},
        {"command": "c", "cwd": "/", "env": {"A": "3", "B": "1"}},
    ]
    assert server(command="worker", args=["-x"], replicas=3).entries == ({"command": "worker", "args": ["-x"]},) * 3


@pytest.mark.parametrize(
    ("name", "prefix", "uri_prefix"),
    [
        ("weather", "weather", "weather"),
        ("My Server/2", "My_Server_2", "my.server.2"),
        ("3d", "3d", "x-3d"),
        ("_x", "_x", "x-.x"),
        ("__proto__", "__proto__", "x-..proto.."),
        ("wéäther", "w__ther", "w..ther"),
        ("天気", "__", "x-.."),
        ("x" * 40, "x" * 25 + "-" + "bd913f", "x" * 25 + "-" + "bd913f"),
        ("constructor\x1b[31m", "constructor__31m", "constructor..31m"),
    ],
)
def test_the_prefix_of_a_server_is_made_of_its_name(name, prefix, uri_prefix):
    found = read({"mcpServers": {name: {"command": "x"}}}).upstreams[name]
    assert (found.prefix, found.uri_prefix) == (prefix, uri_prefix)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,32}", found.prefix) and re.fullmatch(r"[a-z][a-z0-9.-]*", found.uri_prefix)
    # What stands before a URI is not changed once more.
    assert slug(found.uri_prefix) == found.uri_prefix


def test_several_servers_may_have_no_prefix():
    found = read({"mcpServers": {"a": {"command": "x", "prefix": ""}, "b": {"command": "x", "prefix": ""}}})
    assert {(each.prefix, each.uri_prefix) for each in found.upstreams.values()} == {("", "")}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in 3.11")
def test_a_file_may_be_toml(tmp_path):
    text = """
        [mcpServers.weather]
        url = "https://h/mcp"
        headers = {A = "${file:token}"}
        timeout = 5
        [gateway]
        port = 9000
        [[gateway.rules]]
        allow = "tools:*"
    """
    (tmp_path / "token").write_text(SECRET)
    found = read(file(tmp_path, text, "gateway.toml"))
    assert found.upstreams["weather"].timeout_s == 5.0 and found.options["port"] == 9000
    assert found.upstreams["weather"].entries[0]["headers"] == {"A": f"${{file:{tmp_path}/token}}"}
    assert "gateway.toml: This is not TOML" in refused(file(tmp_path, "[a\n", "gateway.toml"))
    twice = "[mcpServers.a]\ncommand = 'x'\n[mcpServers.a]\ncommand = 'y'\n"
    assert "gateway.toml: This is not TOML" in refused(file(tmp_path, twice, "gateway.toml"))
    dated = "[mcpServers.a]\ncommand = 'x'\nprefix = 2026-01-01\n"
    assert "prefix must be a string" in refused(file(tmp_path, dated, "gateway.toml"))
    assert "it has more than" in refused(file(tmp_path, b" " * (4 * 1024 * 1024 + 1), "gateway.toml"))


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="tomllib is new in 3.11")
def test_an_old_python_says_that_it_reads_no_toml(tmp_path):
    assert "TOML is read with Python 3.11 or later; write the file as JSON" in refused(file(tmp_path, "", "g.toml"))


# Variables


def test_variables_are_replaced_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("PORT", "9001")
    monkeypatch.setenv("YES", "true")
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    text = """{"mcpServers": {"one": {"command": "x", "prefix": "${NOT_SET:-p}", "concurrency": "${PORT}",
        "trusted": "${YES}", "tools": ["${TOKEN}_*"]}},
        "gateway": {"port": "${PORT}", "secret": "${file:secret}", "auth": {"keys": {"ada": {"key": "${env:TOKEN}"}}},
                    "instructions": "write $${TOKEN}", "audit": "audit.jsonl"}}"""
    found = read(file(tmp_path, text))
    one = found.upstreams["one"]
    assert (one.prefix, one.concurrency, one.trusted, one.tools.allow) == ("p", 9001, True, (f"{SECRET}_*",))
    assert found.options["port"] == 9001 and found.options["secret"] == (SECRET,)
    assert found.options["auth"] == [("keys", {"source": {"ada": {"key": SECRET}}})]
    assert found.options["instructions"] == "write ${TOKEN}"
    assert found.options["audit"]["file"] == str(tmp_path / "audit.jsonl")
    assert SECRET not in repr(found) + repr(one) + str(one.fingerprint)


def test_a_server_that_is_disabled_needs_no_variables():
    assert server(url="https://${NOT_SET}/", disabled=True).entries == ({"url": "https://${NOT_SET}/"},)
    assert "needs the environment variable NOT_SET" in refused({"mcpServers": {"a": {"url": "https://${NOT_SET}/"}}})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"command": "${NOT_SET}"}, "command needs the environment variable NOT_SET, which is not set"),
        ({"url": "${TOKEN}"}, "url must be a URL that begins with http:// or https://"),
        ({"url": "https://h/ ${TOKEN}"}, "url must be a URL that begins with http:// or https://"),
        ({"command": "x", "args": ["a", "${TOKEN:x}"]}, r"args[1] has ${TOKEN:x}, which is not known; "),
        ({"command": "x", "env": {"A": "${file:/no/such}"}}, "env.A needs the file '/no/such', which cannot be read"),
        ({"command": "x", "mode": "${TOKEN}"}, "mode must be one of auto, modern, legacy, "),
        ({"command": "x", "prefix": "${TOKEN}/"}, "prefix has characters that names of tools cannot have"),
        ({"command": "x", "timeout": "${TOKEN}"}, "timeout must be a number of seconds, not a string"),
        ({"command": "x", "trusted": "${TOKEN}"}, "trusted must be true or false, not a string"),
        ({"command": "x", "sandbox": {"memory": "${TOKEN}"}}, "not '${TOKEN}'"),
        ({"command": "x", "sandbox": {"read_only": ["/no/${TOKEN}"]}}, ""),
        (
            {"command": "x", "forwardHeaders": ["${TOKEN} x"]},
            "forwardHeaders has '${TOKEN} x', which is no",
        ),
        ({"command": "x", "credentials": {"a": ["${NOT_SET}"]}}, "credentials.a[0] needs the environment variable"),
        ({"replicas": [{"url": "http://h/"}, {"url": "${TOKEN}"}]}, "replicas[1].url must be a URL that begins with"),
    ],
)
def test_an_error_shows_variables_as_they_are_written(entry, said):
    message = refused({"mcpServers": {"bad": entry}})
    assert message.startswith("The server 'bad': ") and said in message


def test_an_error_in_credentials_is_one_of_the_configuration():
    client = {"clientId": "c", "clientSecret": "${TOKEN}", "tokenUrl": "https://i/", "method": "${TOKEN}"}
    entry = {"url": "https://h/", "credentials": {"clientCredentials": client}}
    said = "The server 'bad': credentials.clientCredentials.method must be one of client_secret_basic, "
    assert said in refused({"mcpServers": {"bad": entry}})
    assert refused({"mcpServers": {"bad": entry}}).endswith("not '${TOKEN}'")
    said = "The server 'bad': credentials has no option 'token'; "
    assert said in refused({"mcpServers": {"bad": {"url": "https://h/", "credentials": {"token": "x"}}}})
    assert read({"mcpServers": {"bad": {**entry, "disabled": True}}}).upstreams["bad"].disabled
    exchange = {"tokenExchange": {"clientId": "c", "clientSecret": "s", "tokenUrl": "https://i/", "audience": "a"}}
    entry = {"url": "https://h/", "credentials": exchange}
    assert "auth has neither jwt nor introspection" in refused({"mcpServers": {"bad": entry}})


# What is refused


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"prefx": "a"}, "has no option 'prefx'; did you mean 'prefix'?"),
        ({"max_timeout": 5}, "has no option 'max_timeout'; did you mean 'maxTimeout'?"),
        ({"TIMEOUT": 5}, "has no option 'TIMEOUT'; did you mean 'timeout'?"),
        ({"Command": "x"}, "has no option 'Command'; did you mean 'command'?"),
        ({"zzz": 1}, "has no option 'zzz'; there is args, command, concurrency, connectTimeout, "),
        ({"": 1}, "has no option ''; there is "),
        ({"x" * 5000: 1}, "has no option '" + "x" * 100 + "'; "),
        ({"tools": {"alow": []}}, "tools has no option 'alow'; did you mean 'allow'?"),
        ({"tools": 5}, "tools must be an object, not a number"),
        ({"tools": {"allow": [5]}}, "tools.allow[0] must be a string, not a number"),
        ({"tools": [""]}, "tools[0] is empty"),
        ({"prefix": "a b"}, "prefix has characters that names of tools cannot have"),
        ({"prefix": "é"}, "prefix has characters that names of tools cannot have"),
        ({"prefix": "a\n"}, "prefix has characters that names of tools cannot have"),
        ({"prefix": "a/../b"}, "prefix has characters that names of tools cannot have"),
        ({"prefix": "x" * 33}, "prefix must have at most 32 characters, since a name has 64 in all"),
        ({"prefix": 5}, 'prefix must be a string, "" for none'),
        ({"timeout": 0}, "timeout must be a number of seconds from 0.1 to 3600, not 0"),
        ({"timeout": -1}, "timeout must be a number of seconds from 0.1 to 3600, not -1"),
        ({"timeout": 60000}, "from 0.1 to 3600, not 60000; if it is milliseconds, write 60"),
        ({"timeout": True}, "timeout must be a number of seconds, not a boolean"),
        ({"timeout": "5"}, "timeout must be a number of seconds, not a string"),
        ({"timeout": float("nan")}, "timeout must be a number of seconds, not NaN"),
        ({"timeout": float("inf")}, "timeout must be a number of seconds, not one that large"),
        ({"timeout": 10**400}, "timeout must be a number of seconds, not one that large"),
        ({"timeout": 10, "maxTimeout": 5}, "maxTimeout must not be less than timeout, which is 10"),
        ({"concurrency": 1.5}, "concurrency must be a whole number from 1 to 10000, not 1.5"),
        ({"concurrency": 0}, "concurrency must be a whole number from 1 to 10000, not 0"),
        ({"sessions": "Shared"}, "must be one of own, principal, shared, not 'Shared'; did you mean 'shared'?"),
        ({"sessions": ["own"]}, "sessions must be a string, not a list"),
        ({"mode": "2024-11-5"}, "not '2024-11-5'; did you mean '2024-11-05'?"),
        ({"trusted": "yes"}, "trusted must be true or false, not a string"),
        ({"trusted": 1}, "trusted must be true or false, not a number"),
        ({"credentials": "x"}, "credentials must be an object, not a string"),
        ({"forwardHeaders": ["Authorization"]}, "forwardHeaders cannot have Authorization"),
        ({"forwardHeaders": ["cookie"]}, "forwardHeaders cannot have cookie"),
        ({"forwardHeaders": ["Mcp-Session-Id"]}, "forwardHeaders cannot have Mcp-Session-Id"),
        ({"forwardHeaders": ["X-Forwarded-For"]}, "forwardHeaders cannot have X-Forwarded-For"),
        ({"forwardHeaders": ["X-A\r\nB: c"]}, "forwardHeaders has 'X-A\\r\\nB: c', which is no name of a header"),
        ({"forwardHeaders": {"X": 1}}, "forwardHeaders must be a list of strings, not an object"),
        ({"url": "http://h/"}, "has more than one of url and command"),
        ({"args": "x"}, "args must be a list of strings"),
        ({"env": {"A": []}}, "env.A must be a string, not list"),
        ({"cwd": 5}, "cwd must be a string"),
        ({"replicas": 0}, "replicas must be a whole number from 1 to 100, not 0"),
        ({"replicas": 101}, "replicas must be a whole number from 1 to 100, not 101"),
        ({"replicas": "3"}, "replicas must be a whole number, not a string"),
        ({"replicas": [{"command": "y"}]}, "replicas is a list of entries, so that there is no url or command beside"),
        ({"sandbox": 5}, "sandbox must be an object of options"),
        ({"sandbox": {"memry": 5}}, "The sandbox cannot be understood"),
        ({"command": " "}, "needs a url, a command or replicas"),
        ({"command": 5}, "command must be a string"),
        ({"enabled": "no"}, "enabled must be true or false, not a string"),
        ({"disabledTools": [1]}, "disabledTools[0] must be a string, not a number"),
    ],
)
def test_an_option_of_a_server_that_is_wrong_is_named(tmp_path, entry, said):
    text = json.dumps({"mcpServers": {"bad": {"command": "x", **entry}}})
    message = refused(file(tmp_path, text))
    assert message.startswith(f"{tmp_path}/gateway.json: The server 'bad': ") and said in message
    assert len(message) < 700


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "needs a url, a command or replicas"),
        ({"url": 5}, "url must be a string"),
        ({"url": "ftp://h/"}, "url must be a URL that begins with http:// or https://"),
        ({"url": "http://"}, "url must be a URL that begins with http:// or https://"),
        ({"url": "http://a/", "serverUrl": "http://b/"}, "has more than one of url and command"),
        ({"url": "http://h/", "headers": {"A": {}}}, "headers.A must be a string, not dict"),
        ({"url": "http://h/", "headers": "A: b"}, "headers must be an object of strings"),
        ({"url": "http://h/", "sandbox": {}}, "sandbox is for a process that the gateway starts"),
        ({"url": "http://h/", "replicas": 2}, "replicas must be a list of entries, one for each URL"),
        ({"replicas": []}, "replicas must be a list of 1 to 100 entries"),
        ({"replicas": [{"url": "http://h/"}] * 101}, "replicas must be a list of 1 to 100 entries"),
        ({"replicas": [5]}, "replicas[0] must be an object, not a number"),
        ({"replicas": [{"url": "http://h/"}, {}]}, "replicas[1] needs a url or a command"),
        ({"replicas": [{"url": "http://h/", "timeout": 5}]}, "replicas[0] has no option 'timeout'; "),
        ({"replicas": [{"replicas": []}]}, "replicas[0] has no option 'replicas'; "),
        (
            {"replicas": [{"url": "http://h/", "headers": {"A": []}}]},
            "replicas[0]: headers.A must be a string, not list",
        ),
    ],
)
def test_an_entry_that_is_none_is_named(entry, said):
    message = refused({"mcpServers": {"bad": entry}})
    assert message.startswith("The server 'bad': ") and said in message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prot": 1}, "gateway has no option 'prot'; did you mean 'port'?"),
        ({"public_url": 1}, "gateway has no option 'public_url'; did you mean 'publicUrl'?"),
        ({"port": 65536}, "gateway.port must be a whole number from 0 to 65535, not 65536"),
        ({"port": "8000"}, "gateway.port must be a whole number, not a string"),
        ({"host": ""}, "gateway.host is empty"),
        ({"path": "mcp"}, "gateway.path must be a path such as /mcp"),
        ({"path": "/"}, "gateway.path must be a path such as /mcp"),
        ({"path": "/a/../b"}, "gateway.path must be a path such as /mcp"),
        ({"path": "/a?b"}, "gateway.path must be a path such as /mcp"),
        ({"publicUrl": "tools.example/mcp"}, "gateway.publicUrl must be a URL that begins with http:// or https://"),
        ({"trustedProxy": "nowhere", "auth": {"remoteUser": {"header": "X"}}}, "gateway.auth: 'nowhere' does not "),
        ({"secret": "short"}, "gateway.secret must have at least 16 bytes"),
        ({"secret": ["x" * 16, 5]}, "gateway.secret[1] must be a string, not a number"),
        ({"auth": "open"}, "gateway.auth must be an object such as"),
        ({"auth": {}}, "gateway.auth names no verifier"),
        ({"auth": []}, "gateway.auth names no verifier"),
        ({"auth": {"key": "x"}}, "gateway.auth has no option 'key'; did you mean 'keys'?"),
        ({"auth": [{"jwt": {}}]}, "gateway.auth[0].jwt needs 'issuer'"),
        ({"auth": {"jwt": {"issuer": "https://i"}}}, 'gateway.auth: name the "audience" of the tokens, or "publicUrl"'),
        ({"auth": {"jwt": {"issuer": "https://i", "audience": "a", "leeway": 500}}}, "jwt.leeway must be a number"),
        ({"auth": {"jwt": {"issuer": "https://i", "audience": "a", "algorithms": ["HS256"]}}}, "are not accepted"),
        ({"auth": {"introspection": {"issuer": "https://i", "clientId": "c"}}}, "introspection needs 'clientSecret'"),
        ({"auth": {"remoteUser": {"header": "X-User"}}}, "gateway.auth: name the proxy that says who is calling"),
        ({"auth": {"keys": "no/such.json"}}, "gateway.auth: [Errno 2] No such file"),
        ({"auth": {"keys": {"ada": "short"}}}, "gateway.auth: The key 'ada' is shorter than 16 characters"),
        ({"auth": {"keys": {"a": "${TOKEN}", "b": "${TOKEN}"}}}, "gateway.auth: The keys 'a' and 'b' are the same"),
        ({"auth": {"keys": {"a": {"key": "${TOKEN}", "expires": "${TOKEN}"}}}}, "not '${TOKEN}'"),
        ({"auth": {"keys": {"a": {"key": "${TOKEN}", "role": []}}}}, "The key 'a' has ['role']"),
        ({"auth": {"keys": 5}}, "gateway.auth.keys must be an object, not a number"),
        ({"rules": {"allow": "*:*"}}, "gateway.rules must be a list, not an object"),
        ({"rules": [{"allow": "*:*", "role": "x"}]}, "gateway.rules[0] has no option 'role'; did you mean 'roles'?"),
        ({"rules": [{"allow": "${TOKEN}"}]}, "gateway.rules: '${TOKEN}' is not a pattern such as"),
        ({"rules": [{"roles": ["x"]}]}, "gateway.rules: The rule {'roles': ['x']} needs either 'allow' or 'deny'"),
        ({"rules": [{"allow": "*:*", "arguments": {"a": 5}}]}, "gateway.rules[0].arguments.a must be a list of str"),
        ({"onDenied": "show"}, "gateway.onDenied must be one of hide, challenge, not 'show'"),
        ({"rates": {}}, "gateway.rates must be a list, not an object"),
        (
            {"rates": [{"tool": "*", "limit": "1/minute"}]},
            "rates[0] has no option 'tool'; did you mean 'tools'?",
        ),
        ({"rates": [{"tools": "*"}]}, "gateway.rates[0] needs 'limit'"),
        (
            {"rates": [{"tools": "*", "per": "caller", "limit": "1/minute"}]},
            "per must be one of principal, address, all",
        ),
        ({"rates": [{"tools": "*", "limit": "many"}]}, "gateway.rates: "),
        ({"endpoints": {"a/b": {}}}, "gateway.endpoints has an endpoint 'a/b', which cannot begin a path"),
        ({"endpoints": {"..": {}}}, "gateway.endpoints has an endpoint '..', which cannot begin a path"),
        ({"endpoints": {".well-known": {}}}, "gateway.endpoints has an endpoint '.well-known', which cannot begin"),
        ({"endpoints": {"": {}}}, "gateway.endpoints has an endpoint '', which cannot begin a path"),
        ({"endpoints": {"tools": {}}, "rest": True}, "gateway.endpoints has 'tools', where tools are used over plain"),
        ({"endpoints": {"f": {"allow": ["crm_*"]}}}, "gateway.endpoints.f: it: allow has 'crm_*', which is no pattern"),
        ({"endpoints": {"f": {"tools": {"a": {"name": "c"}, "b": {"name": "c"}}}}}, "has the name 'c' as well"),
        ({"endpoints": {"f": {"search": 0}}}, "gateway.endpoints.f.search must be a whole number from 1 to 10000"),
        ({"endpoints": {"f": {"servers": ["oen"]}}}, "has 'oen', which is no server; did you mean 'one'?"),
        ({"endpoints": {"f": {"tools": {"t": {"nme": "x"}}}}}, "endpoints.f.tools.t has no option 'nme'; did you mean"),
        ({"search": "yes"}, "gateway.search must be a whole number, not a string"),
        ({"audit": 5}, "gateway.audit must be an object, not a number"),
        ({"audit": {}}, "gateway.audit needs 'file'"),
        ({"pins": {"file": "p.json", "mode": "stop"}}, "gateway.pins.mode must be one of warn, block, not 'stop'"),
        ({"pins": {"file": "p.json", "new": "block"}}, 'gateway.pins.new can be block in the mode "block" alone'),
        ({"pins": "no/such/p.json"}, "gateway.pins.file is in a folder that there is not: "),
        ({"log": "no/such/log"}, "gateway.log is in a folder that there is not: "),
        ({"peerUrl": "http://h/mcp"}, "gateway.peerUrl needs a secret that all gateways have"),
        ({"sanitize": "all"}, "gateway.sanitize must be true or false, not a string"),
        ({"sanitize": {"patterns": ["("]}}, "gateway.sanitize: "),
        ({"log": 5}, "gateway.log must be true or false, not a number"),
        ({"redis": "localhost:6379"}, "gateway.redis must be a URL that begins with redis:// or rediss://"),
        ({"listTimeout": 0}, "gateway.listTimeout must be a number of seconds from 0.1 to 60, not 0"),
        ({"limits": {"session": 5}}, "gateway.limits has no option 'session'; did you mean 'sessions'?"),
        ({"tls": {"cert": "c.pem"}}, "gateway.tls needs 'key'"),
        ([], "gateway must be an object, not a list"),
        ("x", "gateway must be an object, not a string"),
        (False, "gateway must be an object, not a boolean"),
    ],
)
def test_an_option_of_the_gateway_that_is_wrong_is_named(given, said):
    assert said in refused({"mcpServers": {"one": {"command": "x"}}, "gateway": given})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({}, "A configuration has the form"),
        ({"gateway": {}}, "A configuration has the form"),
        ({"mcpServers": []}, "mcpServers must be an object of servers by name"),
        ({"mcpServers": None}, "mcpServers must be an object of servers by name"),
        ({"mcpServers": {"a": None}}, "The server 'a': must be an object, not null"),
        ({"mcpServers": {"a": []}}, "The server 'a': must be an object, not a list"),
        ({"mcpServers": {}, "servers": {}}, 'There are both "mcpServers" and "servers"'),
        ({"mcpServers": {}, "gatewya": {}}, "There is no option 'gatewya'; did you mean 'gateway'?"),
        ({"mcpservers": {}}, "A configuration has the form"),
        ({"mcpServers": {"": {"command": "x"}}}, "mcpServers has a server whose name has no letters"),
        ({"mcpServers": {" \t": {"command": "x"}}}, "mcpServers has a server whose name has no letters"),
        ({"mcpServers": {"x" * 201: {"command": "x"}}}, "or more than 200"),
        (
            {"mcpServers": {"a b": {"command": "x"}, "a.b": {"command": "x"}}},
            "The servers 'a b' and 'a.b' have the same prefix 'a_b' before their names; give one of them another",
        ),
        (
            {"mcpServers": {"天気": {"command": "x"}, "気象": {"command": "x", "disabled": True}}},
            "The servers '天気' and '気象' have the same prefix '__' before their names",
        ),
        (
            {"mcpServers": {"Hub": {"command": "x"}, "hub": {"command": "x"}}},
            "The servers 'Hub' and 'hub' have the same prefix 'hub' before their URIs",
        ),
        ({"mcpServers": {"a": {"command": "x", "env": {"a": object}}}}, "The configuration has no JSON form"),
    ],
)
def test_a_configuration_of_another_form_is_refused(source, said):
    assert said in refused(source)


def test_a_dict_that_contains_itself_or_is_deep_is_refused():
    source: dict = {"mcpServers": {}}
    source["gateway"] = source
    assert "no JSON form: Circular reference" in refused(source)
    for depth in (900, 2_000, 100_000):
        deep: list = []
        for _ in range(depth):
            deep = [deep]
        refused({"mcpServers": {}, "gateway": {"auth": {"keys": {"a": deep}}}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "This is not JSON"),
        (b"{nonsense", "This is not JSON"),
        (b"\xff\xfe\x00", "This is not JSON"),
        (b'{"mcpServers": {"a": ' + b"[" * 100_000, "This is not JSON"),
        (b" " * (4 * 1024 * 1024 + 1), "it has more than 4194304 bytes"),
        (b'{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}', "The key 'a' stands twice in one object"),
        (b'{"mcpServers": {"a": {"command": "x", "command": "y"}}}', "The key 'command' stands twice in one object"),
        (b'{"mcpServers": {}, "mcpServers": {}}', "The key 'mcpServers' stands twice in one object"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, text, said):
    message = refused(file(tmp_path, text))
    assert message.startswith(f"{tmp_path}/gateway.json: ") and said in message


def test_a_file_that_is_not_there_is_an_error_of_the_same_kind(tmp_path):
    assert refused(tmp_path / "none.json") == f"There is no file '{tmp_path}/none.json'"
    assert refused(tmp_path) == f"{tmp_path}: Is a directory"


@pytest.mark.skipif(os.name != "posix", reason="no modes of files here")
def test_a_file_that_everybody_can_write_is_told_of(tmp_path):
    path = file(tmp_path, '{"mcpServers": {}}')
    for mode, notes in ((0o664, 0), (0o602, 1)):
        path.chmod(mode)
        assert len(read(path).notes) == notes


def test_a_file_of_many_servers_is_read(tmp_path):
    entries = {f"s{number}": {"command": "x", "args": ["a" * 500]} for number in range(2000)}
    assert len(read(file(tmp_path, json.dumps({"mcpServers": entries}))).upstreams) == 2000


def test_an_endpoint_has_what_a_view_has():
    one = {
        "servers": ["one", "o*"],
        "tools": {"one_find": {"name": "find", "description": "d", "fixed": {"region": "${TOKEN}"}, "hidden": ["x"]}},
        "resources": ["note://*"],
        "allow": "tools:*",
        "search": 100,
        "instructions": "Be brief.",
    }
    found = options(endpoints={"finance": one, "b": {"tools": ["a*"]}, "c": {}}, search=True)
    assert found["search"] is True and found["endpoints"]["b"] == {"tools": ("a*",)} and found["endpoints"]["c"] == {}
    finance = found["endpoints"]["finance"]
    assert finance["tools"]["one_find"]["fixed"] == {"region": SECRET} and finance["search"] == 100
    assert finance["allow"] == ("tools:*",) and finance["tools"]["one_find"]["hidden"] == ("x",)


# What is made of options


def test_verifiers_are_made_of_auth(tmp_path):
    keys = tmp_path / "keys.json"
    keys.write_text("{}")
    keys.chmod(0o600)
    text = json.dumps(
        {
            "mcpServers": {},
            "gateway": {
                "auth": [
                    {"keys": "keys.json"},
                    {"jwt": {"issuer": "https://i.example", "audience": "a", "dpop": "required"}},
                    {"remoteUser": {"header": "X-User", "roles": "X-Roles"}},
                    {"clientCertificate": {}},
                    "public",
                ],
                "trustedProxy": ["127.0.0.1"],
            },
        }
    )
    made = gateway_options.make_auth(read(file(tmp_path, text)).options)
    assert [type(each).__name__ for each in made[:4]] == ["Keys", "Jwt", "RemoteUser", "ClientCertificate"]
    assert isinstance(made[0], Keys) and isinstance(made[1], Jwt) and isinstance(made[2], RemoteUser)
    assert made[1].schemes == ("DPoP",) and made[4] == "public"
    assert gateway_options.make_auth(options(auth="public")) == "public"
    assert gateway_options.make_auth(options(auth=["public"])) == "public"
    assert gateway_options.make_auth(options()) is None


def test_rules_and_sanitizer_are_made():
    found = options(rules=[{"allow": "tools:a*", "roles": "staff", "servers": ["one"]}], sanitize={"maxBytes": 2048})
    rules = gateway_options.make_policy(found)
    assert isinstance(rules, Rules)
    assert not rules.decide(None, "tools", "ab")
    assert gateway_options.make_sanitizer(found).max_bytes == 2048
    assert gateway_options.make_sanitizer(options(sanitize=True)).max_bytes == 4 * 1024 * 1024
    assert gateway_options.make_sanitizer(options(sanitize={})).max_bytes == 4 * 1024 * 1024
    assert gateway_options.make_sanitizer(options(sanitize=False)) is None
    # Without rules everybody may use everything; with none of them nobody may use anything.
    assert gateway_options.make_policy(options()) is None
    assert not gateway_options.make_policy(options(rules=[])).decide(None, "tools", "a")


def test_a_server_is_given_what_is_configured():
    found = gateway_options.server_options(options(name="n", secret="x" * 16, publicUrl="https://h/mcp", rules=[]))
    assert sorted(found) == ["name", "on_denied", "policy", "public_url", "secret", "trusted_proxy"]
    assert found["name"] == "n" and found["secret"] == ("x" * 16,)


# What two configurations differ in


def test_the_difference_goes_by_content(monkeypatch, tmp_path):
    def make(**servers):
        return read({"mcpServers": servers, "gateway": {"name": "x"}})

    token = tmp_path / "token"
    token.write_text("one")
    kept = {"command": "x", "env": {"A": "1", "B": "${TOKEN}"}}
    by_file = {"url": "https://h/", "headers": {"A": f"${{file:{token}}}"}}
    old = make(a=kept, b={"command": "y"}, c={"command": "z"}, d=by_file)
    again = make(d=by_file, c={"args": [], "command": "z"}, a={"env": {"B": "${TOKEN}", "A": "1"}, "command": "x"})
    assert diff(old, again) == {
        "added": [],
        "removed": ["b"],
        "changed": ["c"],
        "kept": ["d", "a"],
        "options": [],
    }
    token.write_text("two")
    monkeypatch.setenv("TOKEN", "another")
    assert diff(old, make(a=kept, d=by_file))["changed"] == ["a", "d"]
    new = read({"mcpServers": {"e": {"command": "x"}}, "gateway": {"name": "y", "port": 9}})
    assert diff(old, new) == {
        "added": ["e"],
        "removed": ["a", "b", "c", "d"],
        "changed": [],
        "kept": [],
        "options": ["name", "port"],
    }


def test_a_fingerprint_cannot_be_made_elsewhere(monkeypatch):
    one = server(headers={"A": "${TOKEN}"}, url="https://h/").fingerprint
    assert one == server(headers={"A": "${TOKEN}"}, url="https://h/").fingerprint
    monkeypatch.setitem(config.read_server.__globals__, "_KEY", b"of another process")
    assert one != server(headers={"A": "${TOKEN}"}, url="https://h/").fingerprint


def test_a_client_can_be_made_of_every_entry():
    for entry in server(replicas=[{"url": "http://a/"}, {"command": "y"}], headers={"A": "${TOKEN}"}).entries:
        assert targets.read(entry, None, {}).key
