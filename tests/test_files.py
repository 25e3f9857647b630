"""A folder as resources: what is listed, what is read, what follows changes, and what can never be reached."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from minimcp import Client, FileResources, RemoteError, Server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "plan.md").write_text("# Plan")
    (root / "data.json").write_text('{"a": 1}')
    (root / "pic.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (root / "odd name é.txt").write_text("odd")
    (root / "latin.txt").write_bytes(b"caf\xe9")
    (root / "deep" / "er" / "leaf.txt").write_text("leaf")
    (root / ".hidden").write_text("hidden")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("hidden")
    (root / "large.bin").write_bytes(b"x" * 2000)
    (tmp_path / "secret.txt").write_text("secret")
    return root


@pytest.fixture
def serving(folder: Path) -> Iterator[tuple[FileResources, Client]]:
    server = Server("files")
    files = FileResources(folder, max_bytes=1000, watch_s=0.02).add_to(server)
    with Client(server) as client:
        yield files, client
    files.close()


def test_files_are_listed_with_type_and_size(serving: Any) -> None:
    listed = serving[1].list_resources()
    assert [(each["uri"], each["name"], each.get("mimeType"), each["size"]) for each in listed] == [
        ("files:///data.json", "data.json", "application/json", 8),
        ("files:///latin.txt", "latin.txt", "text/plain", 4),
        ("files:///odd%20name%20%C3%A9.txt", "odd name é.txt", "text/plain", 3),
        ("files:///pic.png", "pic.png", "image/png", 8),
        ("files:///plan.md", "plan.md", "text/markdown", 6),
        ("files:///deep/er/leaf.txt", "deep/er/leaf.txt", "text/plain", 4),
    ]
    assert [each["uriTemplate"] for each in serving[1].list_resource_templates()] == ["files:///{+path}"]


@pytest.mark.parametrize(
    "uri, mime, content",
    [
        ("files:///plan.md", "text/markdown", {"text": "# Plan"}),
        ("files:///data.json", "application/json", {"text": '{"a": 1}'}),
        ("files:///pic.png", "image/png", {"blob": "iVBORw0KGgo="}),
        ("files:///latin.txt", "text/plain", {"blob": "Y2Fm6Q=="}),
        ("files:///odd%20name%20%C3%A9.txt", "text/plain", {"text": "odd"}),
        ("files:///deep/er/leaf.txt", "text/plain", {"text": "leaf"}),
    ],
)
def test_files_are_read_as_text_or_bytes(serving: Any, uri: str, mime: str, content: Any) -> None:
    assert serving[1].read_resource(uri)["contents"] == [{"uri": uri, "mimeType": mime, **content}]


ESCAPES = [
    "../secret.txt",
    "..%2fsecret.txt",
    "%2e%2e/secret.txt",
    "%2e%2e%2fsecret.txt",
    "..%5csecret.txt",
    "..\\secret.txt",
    "deep/../../secret.txt",
    "deep/%2e%2e/%2e%2e/secret.txt",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "C:/secret.txt",
    "plan.md/",
    "plan.md/.",
    "./plan.md",
    "deep//er/leaf.txt",
    "plan.md%00.png",
    "plan.md\x00",
    "%252e%252e/secret.txt",
    "..%c0%afsecret.txt",
    "",
    ".",
    "..",
    "deep",
    ".hidden",
    ".git/config",
    "large.bin",
    "link.txt",
    "linked/secret.txt",
    "pipe",
    "CON",
    "nul.txt",
    "aux",
]


@pytest.mark.parametrize("path", ESCAPES)
def test_nothing_else_is_reached(serving: Any, folder: Path, path: str) -> None:
    if hasattr(os, "symlink"):
        (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
        (folder / "linked").symlink_to(folder.parent)
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
    for uri in {f"files:///{path}", f"files:///{quote(path)}"}:
        with pytest.raises(RemoteError) as caught:
            serving[1].read_resource(uri)
        assert caught.value.code == -32602 and "secret" not in caught.value.message


@pytest.mark.skipif(not hasattr(os, "symlink") or sys.platform == "win32", reason="no links here")
def test_a_folder_that_becomes_a_link_is_not_followed(serving: Any, folder: Path) -> None:
    assert serving[1].read_resource("files:///deep/er/leaf.txt").text == "leaf"
    outside = folder.parent / "outside"
    (outside / "er").mkdir(parents=True)
    (outside / "er" / "leaf.txt").write_text("secret")
    (folder / "deep").rename(folder / "moved")
    (folder / "deep").symlink_to(outside)
    with pytest.raises(RemoteError, match="not found"):
        serving[1].read_resource("files:///deep/er/leaf.txt")


def test_clients_hear_what_comes_goes_and_changes(serving: Any, folder: Path) -> None:
    files, client = serving
    uri, heard = "files:///plan.md", queue.Queue()  # type: ignore[var-annotated]
    client.list_resources()
    with client.listen(resources=True, uris=[uri]) as changes:
        thread = threading.Thread(target=lambda: [heard.put(change) for change in changes], daemon=True)
        thread.start()
        (folder / "plan.md").write_text("# Another plan")
        assert heard.get(timeout=15)
        (folder / "new.txt").write_text("new")
        while "files:///new.txt" not in [each["uri"] for each in client.list_resources()]:
            heard.get(timeout=15)
        (folder / "new.txt").unlink()
        while "files:///new.txt" in [each["uri"] for each in client.list_resources()]:
            heard.get(timeout=15)
    thread.join(15)
    assert client.read_resource(uri).text == "# Another plan"


def test_options_hold_for_all_files(folder: Path) -> None:
    server = Server("files")
    files = FileResources(folder, "docs://", hidden=True).add_to(server, allow=lambda ctx: False)
    with Client(server) as client:
        assert client.list_resources() == [] and client.list_resource_templates() == []
        with pytest.raises(RemoteError, match="not found"):
            client.read_resource("docs://.hidden")
    files.close()
    assert "docs://.git/config" in server.engine.registry.resources


def test_a_folder_with_too_many_files_is_served_in_part(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = Server("files")
    FileResources(folder, max_files=2).add_to(server)
    assert len(server.engine.registry.resources) == 2 and "more than 2 files" in caplog.text


def test_a_folder_that_is_none_is_refused(folder: Path) -> None:
    for wrong in (folder / "none", folder / "plan.md"):
        with pytest.raises(NotADirectoryError):
            FileResources(wrong)
