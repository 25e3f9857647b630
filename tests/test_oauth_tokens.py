"""What a token endpoint may answer, and where tokens are kept."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from minimcp import FileStore
from minimcp.engines.errors import AuthorizationError
from minimcp.engines.oauth.tokens import has_expired, read_token
from tests.transports import ROOT

GOOD = {"access_token": "a-b.c~d+e/f==", "token_type": "bearer"}


def test_a_token_is_kept_with_the_time_it_expires():
    now = time.time()
    token = read_token({**GOOD, "expires_in": 3600, "refresh_token": "r", "scope": "a b", "id_token": "x"}, False)
    assert now + 3500 < token.pop("expires_at") < now + 3600
    assert token == {**GOOD, "refresh_token": "r", "scope": "a b"}
    assert read_token({**GOOD, "expires_in": "3600"}, False)["expires_at"] > now + 3500
    assert read_token(GOOD, False)["expires_at"] is None


def test_a_token_is_over_a_little_before_it_expires():
    assert not has_expired(read_token(GOOD, False))
    assert not has_expired(read_token({**GOOD, "expires_in": 10}, False))
    assert has_expired({"expires_at": time.time() - 1})
    late = read_token({**GOOD, "expires_in": 3600}, False)["expires_at"]
    assert late <= time.time() + 3570


@pytest.mark.parametrize(
    "change",
    [
        {"access_token": None},
        {"access_token": ""},
        {"access_token": 7},
        {"access_token": "secret\r\nX-Injected: 1"},
        {"access_token": "secret with space"},
        {"access_token": "sécret"},
        {"access_token": "s" * 20000},
        {"refresh_token": "secret\n"},
        {"refresh_token": ["secret"]},
        {"token_type": "mac"},
        {"token_type": "DPoP"},
        {"expires_in": -1},
        {"expires_in": 1e99},
        {"expires_in": 10**400},
        {"expires_in": float("nan")},
        {"expires_in": float("inf")},
        {"expires_in": True},
        {"expires_in": False},
        {"expires_in": "x"},
        {"expires_in": "-5"},
        {"expires_in": []},
    ],
)
def test_a_token_that_cannot_be_used_is_refused_and_not_shown(change):
    with pytest.raises(AuthorizationError) as caught:
        read_token({**GOOD, **change}, False)
    assert "secret" not in str(caught.value)


def test_a_bearer_token_is_no_substitute_for_a_bound_one():
    with pytest.raises(AuthorizationError, match="DPoP"):
        read_token(GOOD, True)
    assert read_token({**GOOD, "token_type": "DPoP"}, True)["token_type"] == "dpop"
    with pytest.raises(AuthorizationError):
        read_token(None, False)


def test_a_file_store_is_a_mapping_that_only_its_owner_can_read(tmp_path):
    path = tmp_path / "deep" / "tokens.json"
    store = FileStore(path)
    assert dict(store) == {} and store.get("a") is None and not path.exists()
    store["a"] = {"b": 1}
    store["c"] = {}
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert dict(FileStore(path)) == {"a": {"b": 1}, "c": {}} and len(store) == 2
    assert store.pop("c") == {} and store.pop("c", None) is None
    assert json.loads(path.read_text()) == {"a": {"b": 1}}
    assert sorted(item.name for item in path.parent.iterdir()) == ["tokens.json", "tokens.json.lock"]
    assert repr(store) == f"FileStore({str(path)!r})"


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path):
    path = tmp_path / "tokens.json"
    path.write_text("{}")
    path.chmod(0o644)
    FileStore(path)["a"] = {}
    assert path.stat().st_mode & 0o777 == 0o600


def test_threads_and_processes_lose_nothing(tmp_path):
    path = tmp_path / "tokens.json"
    code = f"from minimcp import FileStore; s = FileStore({str(path)!r})\nfor i in range(20): s['p%d' % i] = {{}}"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    store = FileStore(path)

    def write(name):
        for index in range(10):
            store[f"{name}{index}"] = {}

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert child.wait(30) == 0
    assert len(store) == 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_the_store_is_locked_can_use_it_afterwards(tmp_path):
    store = FileStore(tmp_path / "tokens.json")
    with store.locked():
        child = os.fork()
        if child == 0:
            store["child"] = {}
            os._exit(0)
        store["parent"] = {}
    assert os.waitpid(child, 0)[1] == 0
    assert set(store) == {"child", "parent"}


@pytest.mark.parametrize("value", ["", None, 0, 0.0, "0"])
def test_an_expiry_of_nothing_is_none(value):
    assert read_token({**GOOD, "expires_in": value}, False)["expires_at"] is None


@pytest.mark.parametrize("empty", ["", None])
def test_what_is_empty_or_null_in_an_answer_is_absent(empty):
    reply = {**GOOD, "refresh_token": empty, "token_type": empty, "scope": empty, "error": empty}
    token = read_token(reply, False)
    assert token["refresh_token"] is None and token["token_type"] == "bearer"
    assert read_token({"access_token": "a"}, False)["token_type"] == "bearer"
    with pytest.raises(AuthorizationError, match="not a DPoP token"):
        read_token(reply, True)


@pytest.mark.parametrize(
    "text",
    [
        "three years of work",
        "[]",
        "[1]",
        '"x"',
        "5",
        '{"name": "x"}',
        '{"mcpServers": {"a": {"url": "x"}}}',
        "{",
        "[" * 100_000,
    ],
)
def test_a_file_that_is_no_store_is_never_replaced(tmp_path, text):
    path = tmp_path / "work.json"
    path.write_text(text)
    store = FileStore(path)
    for use in (
        lambda: store.__setitem__("a", {}),
        lambda: store.get("a"),
        lambda: list(store),
        lambda: store.pop("a", None),
    ):
        with pytest.raises(AuthorizationError, match="work.json is not a file of tokens"):
            use()
    assert path.read_text() == text


@pytest.mark.parametrize("text", ["", " \n", "{}"])
def test_an_empty_file_becomes_a_store(tmp_path, text):
    path = tmp_path / "new.json"
    path.write_text(text)
    FileStore(path)["token x"] = {"client": ["a", None], "expires_at": 1.5}
    assert FileStore(path)["token x"] == {"client": ["a", None], "expires_at": 1.5}


@pytest.mark.skipif(os.name != "posix", reason="no modes here")
def test_all_folders_that_are_made_are_the_owners_alone(tmp_path):
    before = os.umask(0)
    try:
        FileStore(tmp_path / "a" / "b" / "c" / "tokens.json")["x"] = {}
    finally:
        os.umask(before)
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in made] == [0o700] * 3
