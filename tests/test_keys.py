"""API keys: where they are taken from, what they grant, how they end, and the command that makes them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from minimcp import Context, Server
from minimcp.auth import AuthRequest, Keys
from minimcp.auth.keys import hash_key
from minimcp.cli.main import main
from tests.helpers import http_headers, modern

KEY = "k3y-of-the-build-server"
WHO = modern("tools/call", name="who")


def verify(keys: Keys, **headers: str) -> Any:
    environ = {"HTTP_" + name.upper(): value for name, value in headers.items()}
    return keys.verify(AuthRequest(environ, "", ""))


def answer(server: Server, **headers: str) -> Any:
    return Client(server.wsgi).post("/mcp", data=json.dumps(WHO), headers=http_headers(WHO, **headers))


def serving(keys: Keys) -> Server:
    server = Server("s", auth=keys)

    @server.tool
    def who(ctx: Context) -> dict:
        found = ctx.principal
        return {"id": found.id, "roles": list(found.roles), "scopes": list(found.scopes), "via": found.via}

    return server


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}])
def test_a_key_is_taken_from_both_headers(headers: dict[str, str]) -> None:
    server = serving(Keys({"ci": {"key": KEY, "roles": ["builder"], "scopes": ["read"]}}))
    found = answer(server, **headers).json["result"]["structuredContent"]
    assert found == {"id": "ci", "roles": ["builder"], "scopes": ["read"], "via": "key"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer another-key-than-that"},
        {"X-API-Key": "another-key-than-that"},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "," + KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY} {KEY}"},
        {"X-API-Key": KEY, "Authorization": "Bearer another-key-than-that"},
        {"X-API-Key": "x" * 5000},
        {"X-API-Key": "\xff\xfe"},
        {"X-API-Key": hash_key(KEY)},
    ],
)
@pytest.mark.parametrize("others", [[], ["public"]])
def test_everything_else_is_refused(headers: dict[str, str], others: list[Any]) -> None:
    server = Server("s", auth=[Keys({"ci": KEY}), *others])
    server.tool(lambda: "x", "who")
    assert answer(server, **headers).status_code == (200 if others and not headers else 401)


def test_a_key_ends_when_it_expires() -> None:
    later, before = time.time() + 60, time.time() - 1
    assert verify(Keys({"ci": {"key": KEY, "expires": later}}), x_api_key=KEY).id == "ci"
    for expires in (before, "2020-01-31", "2020-01-31T10:00:00Z", "2020-01-31T10:00:00+02:00"):
        reply = answer(serving(Keys({"ci": {"key": KEY, "expires": expires}})), **{"X-API-Key": KEY})
        assert reply.status_code == 401
        challenge = 'Bearer error="invalid_token", error_description="The key has expired"'
        assert reply.headers["WWW-Authenticate"] == challenge


def test_keys_are_kept_as_hashes_alone() -> None:
    keys = Keys({"ci": KEY})
    assert KEY not in repr(vars(keys)) and KEY not in repr(vars(keys._source))
    assert hash_key("abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert verify(Keys({"ci": {"hash": hash_key(KEY)}}), x_api_key=KEY).id == "ci"


def test_an_object_of_ones_own_may_hold_the_keys() -> None:
    class Table:
        def find(self, digest: str) -> Any:
            return {"name": "row", "roles": ["r"]} if digest == hash_key(KEY) else None

    keys = Keys(Table(), issuer="https://table.example", scopes=("mcp",))
    assert verify(keys, x_api_key=KEY).key == ("https://table.example", "row")
    assert verify(keys, x_api_key="another-key-than-that") is None
    assert answer(serving(keys), **{"X-API-Key": KEY}).status_code == 403


@pytest.mark.parametrize(
    "source, problem",
    [
        ({"ci": "short"}, "shorter than 16"),
        ({"ci": {}}, "needs either its text"),
        ({"ci": {"key": KEY, "hash": "x"}}, "needs either its text"),
        ({"ci": {"key": KEY, "role": ["x"]}}, r"has \['role'\]"),
        ({"ci": {"key": KEY, "roles": "admin"}}, "roles of the key 'ci' are a list"),
        ({"ci": {"key": KEY, "expires": "soon"}}, "ISO 8601"),
        ({"ci": KEY, "cd": KEY}, "'ci' and 'cd' are the same"),
    ],
)
def test_keys_that_protect_nothing_are_refused(source: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Keys(source)


def test_a_file_is_made_read_again_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "keys.json")
    assert (
        main(["token", "ann", "--role", "admin", "--role", "ops", "--scope", "read", "--days", "1", "--file", file])
        == 0
    )
    key = capsys.readouterr().out.strip()
    assert key.startswith("mcp_") and len(key) > 40 and key not in Path(file).read_text()
    assert os.stat(file).st_mode & 0o777 == 0o600
    keys = Keys(file)
    found = verify(keys, authorization=f"Bearer {key}")
    assert (found.id, found.roles, found.scopes) == ("ann", ("admin", "ops"), ("read",))

    assert main(["token", "bob", "--file", file]) == 0
    bobs = capsys.readouterr().out.strip()
    assert verify(keys, x_api_key=bobs).id == "bob"
    assert main(["token", "bob", "--file", file]) == 1
    assert "revoke it first" in capsys.readouterr().err

    monkeypatch.setattr("minimcp.auth.keys._NOTED_S", -1)
    verify(keys, x_api_key=bobs)
    assert main(["token", "--list", "--file", file]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("ann\troles admin ops; scopes read; expires 20") and shown[1].startswith(
        "bob\tlast used 20"
    )

    assert main(["token", "bob", "--revoke", "--file", file]) == 0
    assert verify(keys, x_api_key=bobs) is None and verify(keys, x_api_key=key).id == "ann"
    assert main(["token", "bob", "--revoke", "--file", file]) == 1
    assert main(["token", "--file", file]) == 1


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"ann": "x"}', None])
def test_a_file_that_cannot_be_read_lets_nobody_in(
    tmp_path: Path, content: Any, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    assert main(["token", "ann", "--file", str(file)]) == 0
    server = serving(Keys(file))
    assert answer(server, **{"X-API-Key": "another-key-than-that"}).status_code == 401
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert answer(server, **{"X-API-Key": "another-key-than-that"}).status_code == 503
    assert "keys.json" in caplog.text
    with pytest.raises((ValueError, OSError), match=r"keys\.json"):
        Keys(file)


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text("{}")
    file.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        Keys(file)
