"""The configuration of a gateway: an `mcpServers` file with keys of the gateway beside those of hosts."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Optional, Union

Message = dict[str, Any]


class Filter(NamedTuple):
    """Patterns of names, in which `*` stands for anything; what is denied is not listed and cannot be used."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()


class UpstreamSettings(NamedTuple):
    """The settings of one server behind the gateway; times are in seconds.

    :ivar name: its key in the configuration.
    :ivar entries: the `mcpServers` entry of each of its replicas.
    :ivar prefix: stands before the names of its tools and prompts, "" for none.
    :ivar uri_prefix: stands before its URIs, "" for none.
    :ivar sessions: who shares a legacy session: "own": nobody, "principal": the sessions of one caller, "shared": all.
    :ivar trusted: whether its annotations of tools and its caching hints are believed.
    :ivar credentials: how a connection to it authenticates itself, beside the headers of its entry, or None.
    :ivar forward_headers: the headers of a caller that it gets.
    :ivar expect_tools: the tools without which a replica does not count as healthy.
    :ivar probe_s: the time between two probes of a replica; 0 for none.
    """

    name: str
    entries: tuple[Message, ...]
    prefix: str = ""
    uri_prefix: str = ""
    mode: str = "auto"
    timeout_s: float = 60.0
    max_timeout_s: float = 600.0
    connect_timeout_s: float = 10.0
    concurrency: int = 100
    sessions: str = "own"
    max_sessions: int = 64
    idle_s: float = 600.0
    trusted: bool = False
    disabled: bool = False
    credentials: Optional[Message] = None
    forward_headers: tuple[str, ...] = ()
    tools: Filter = Filter()
    resources: Filter = Filter()
    prompts: Filter = Filter()
    expect_tools: tuple[str, ...] = ()
    probe_s: float = 15.0


class Settings(NamedTuple):
    """A configuration that has been read and checked.

    :ivar upstreams: the servers by name, in the order of the file.
    :ivar options: the members of "gateway", under names such as `public_url`, each with its default.
    :ivar path: the file that it was read from, or None.
    """

    upstreams: dict[str, UpstreamSettings]
    options: Message
    path: Optional[str] = None


def read(source: Union[Message, str, os.PathLike[str]]) -> Settings:
    """Read and check a configuration: a dict, or the path of a JSON or TOML file.

    :raises ValueError: naming the place that is wrong and what was probably meant.
    """
    raise NotImplementedError
