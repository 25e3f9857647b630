"""Signed tokens: recognised, bound to a purpose, expiring, and rotated."""

from __future__ import annotations

import base64
import json

import pytest

from minimcp.server.seal import BadSeal, Sealer, digest

KEY = "a-key-of-16-bytes"


def test_what_was_sealed_comes_back():
    token = Sealer(KEY).seal("state", {"a": [1, None, "å"]}, 60)
    assert token.isascii() and not set(token) & set(" \t\r\n=,;")
    found = Sealer(KEY).unseal("state", token)
    assert found.pop("exp") > 0 and found == {"a": [1, None, "å"]}


def test_one_changed_character_anywhere_is_noticed():
    token = Sealer(KEY).seal("state", {"a": 1}, 60)
    for place in range(len(token)):
        other = "A" if token[place] != "A" else "B"
        with pytest.raises(BadSeal):
            Sealer(KEY).unseal("state", token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize("token", [None, 5, b"x", "", ".", "a.b", "é", {}, "x" * 600_000])
def test_what_is_no_token_is_refused(token):
    with pytest.raises(BadSeal):
        Sealer(KEY).unseal("state", token)


def test_a_token_serves_one_purpose_one_key_and_its_time(monkeypatch):
    token = Sealer(KEY).seal("state", {}, 60)
    with pytest.raises(BadSeal):
        Sealer(KEY).unseal("session", token)
    with pytest.raises(BadSeal):
        Sealer("another-key-of-16").unseal("state", token)
    import time

    now = time.time()
    monkeypatch.setattr("minimcp.server.seal.time.time", lambda: now + 62)
    with pytest.raises(BadSeal, match="expired"):
        Sealer(KEY).unseal("state", token)


def test_an_unsigned_payload_is_never_read():
    forged = base64.urlsafe_b64encode(json.dumps({"exp": 9e9}).encode()).rstrip(b"=").decode()
    for token in (forged, forged + ".", forged + "." + forged):
        with pytest.raises(BadSeal, match="signature"):
            Sealer(KEY).unseal("state", token)


def test_the_first_key_signs_and_all_verify():
    old, both = Sealer("old-key-of-16-bytes"), Sealer(["new-key-of-16-bytes", "old-key-of-16-bytes"])
    assert both.unseal("state", old.seal("state", {"n": 1}, 60))["n"] == 1
    with pytest.raises(BadSeal):
        old.unseal("state", both.seal("state", {"n": 1}, 60))


def test_keys_come_from_the_environment_or_are_made(monkeypatch):
    monkeypatch.delenv("MINIMCP_SECRET", raising=False)
    assert Sealer().shared is False
    with pytest.raises(BadSeal):
        Sealer().unseal("state", Sealer().seal("state", {}, 60))
    monkeypatch.setenv("MINIMCP_SECRET", "new-key-of-16-bytes old-key-of-16-bytes")
    assert Sealer().shared is True
    assert Sealer().unseal("state", Sealer("old-key-of-16-bytes").seal("state", {"n": 1}, 60))["n"] == 1


@pytest.mark.parametrize("secret", ["short", b"short", ["long-enough-for-this", "short"]])
def test_a_short_key_is_refused(secret):
    with pytest.raises(ValueError, match="16 bytes"):
        Sealer(secret)


def test_a_digest_is_the_same_for_equal_values_only():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert len({digest(value) for value in ({"a": 1}, {"a": "1"}, {"a": 1.5}, {"a": None}, {}, [], None)}) == 7
