"""Sandboxes of servers that a client starts: limits of the system, and files and a network of their own.

Asked for and not available, a sandbox is refused: it is never left out silently.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union

from ..engines.errors import ConnectionLost

Path = Union[str, "os.PathLike[str]"]
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
# The folders of programs and libraries, without which nothing runs.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache", "/etc/ssl")
_NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/pki", "/etc/ca-certificates")

# Runs in the new process before the server: sets the limits, gives up further privileges, becomes the server.
_LAUNCHER = """
import ctypes, json, os, resource, sys
limits, command = json.loads(sys.argv[1]), sys.argv[2:]
for name, value in limits.items():
    number = getattr(resource, name)
    hard = resource.getrlimit(number)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(number, (value, value))
if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(38, 1, 0, 0, 0):
    sys.exit("no_new_privs could not be set")
if "RLIMIT_FSIZE" in limits:
    # Python would keep a module that was cut off at the limit, and fail to load it ever after.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
os.execvpe(command[0], command, os.environ)
"""


class Sandbox:
    """The bounds of a server's process: `Client(command, sandbox=Sandbox(memory="512M", network="none"))`.

    The limits hold for each process of the server; no program that it starts gets more privileges than it has. With
    `read_only`, `writable` or `network` the server sees a file system of its own: the folders of programs, an empty
    /tmp, and these paths alone, so that its own file has to be among them; this needs bubblewrap (`bwrap`) on Linux.

    :param cpu_s: seconds of processor time.
    :param memory: bytes of address space, such as 536870912 or "512M".
    :param open_files: open files and connections.
    :param processes: processes of this user in all; root has no such limit.
    :param file_size: the largest file that is written, in bytes or such as "10M".
    :param read_only: paths that may be read.
    :param writable: paths that may be read and written.
    :param network: "none" leaves the server a loopback device of its own, "host" is the network as it is.
    :raises ValueError: for a limit that makes no sense, or a sandbox that this system does not have.
    """

    def __init__(
        self,
        *,
        cpu_s: int | None = None,
        memory: int | str | None = None,
        open_files: int | None = None,
        processes: int | None = None,
        file_size: int | str | None = None,
        read_only: Iterable[Path] | None = None,
        writable: Iterable[Path] | None = None,
        network: Literal["none", "host"] | None = None,
    ) -> None:
        limits = {
            "RLIMIT_CPU": cpu_s,
            "RLIMIT_AS": _bytes("memory", memory),
            "RLIMIT_NOFILE": open_files,
            "RLIMIT_NPROC": processes,
            "RLIMIT_FSIZE": _bytes("file_size", file_size),
        }
        self._limits = {name: value for name, value in limits.items() if value is not None}
        for name, value in self._limits.items():
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                raise ValueError(f"A limit of a sandbox is a number above zero, not {value!r} ({name})")
        if network not in (None, "none", "host"):
            raise ValueError(f'network= is "none" or "host", not {network!r}')
        for option, paths in (("read_only", read_only), ("writable", writable)):
            if isinstance(paths, (str, os.PathLike)):
                raise ValueError(f"{option}= is a list of paths")
        self._own_files = read_only is not None or writable is not None or network is not None
        self._read_only = [os.path.abspath(path) for path in read_only or ()]
        self._writable = [os.path.abspath(path) for path in writable or ()]
        self._network = network
        self.check()

    def __repr__(self) -> str:
        return f"Sandbox({self._limits}, {self._read_only}, {self._writable}, {self._network!r}, {self._own_files})"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Sandbox:
        """Make a sandbox from the "sandbox" of an `mcpServers` entry, which has the options by their names.

        :raises ValueError: for an option that is not known.
        """
        try:
            return cls(**settings)
        except TypeError as problem:
            raise ValueError(f"The sandbox cannot be understood: {problem}") from None

    @classmethod
    def parse(cls, text: str) -> Sandbox:
        """Make a sandbox from text such as "memory=512M,network=none,writable=/data:/cache"."""
        return cls.of(cls.settings(text))

    @staticmethod
    def settings(text: str) -> dict[str, Any]:
        """Return the options in such a text.

        :raises ValueError: for a part that is none.
        """
        settings: dict[str, Any] = {}
        for part in filter(None, text.split(",")):
            name, equals, value = part.partition("=")
            if not equals:
                raise ValueError(f"{part!r} is not an option of a sandbox such as memory=512M")
            if name in ("read_only", "writable"):
                settings[name] = value.split(os.pathsep)
            else:
                settings[name] = int(value) if value.isdecimal() else value
        return settings

    def check(self) -> None:
        """Make sure that this system has what is asked for.

        :raises ValueError: otherwise.
        """
        if os.name != "posix":
            raise ValueError("A sandbox needs a POSIX system such as Linux; start the server without one here")
        if self._own_files and (sys.platform != "linux" or shutil.which("bwrap") is None):
            raise ValueError(
                "read_only=, writable= and network= need bubblewrap, which is not installed: install bwrap"
            )
        for path in self._read_only + self._writable:
            if not os.path.exists(path):
                raise ValueError(f"The path {path} of the sandbox does not exist")

    def wrap(self, command: list[str], cwd: str | None = None) -> list[str]:
        """Return the command that starts a server within the sandbox.

        :param command: with the full path of its program.
        """
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, json.dumps(self._limits), *command]
        return self._bubble(cwd) + launcher if self._own_files else launcher

    def _bubble(self, cwd: str | None) -> list[str]:
        program = shutil.which("bwrap")
        if program is None:
            raise ConnectionLost("The server did not start: bwrap, which its sandbox needs, is gone", "always")
        words = [program, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
        words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 (the new one inside)
        words += ["--unshare-net"] if self._network == "none" else []
        prefixes = {sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))}
        shown = [*_SYSTEM, *(() if self._network == "none" else _NETWORK), *sorted(prefixes)]
        for path in dict.fromkeys(shown):
            words += ["--ro-bind-try", path, path]
        for path in self._read_only:
            words += ["--ro-bind", path, path]
        for path in self._writable:
            words += ["--bind", path, path]
        folder = os.path.abspath(cwd or os.curdir)
        seen = cwd or any(os.path.commonpath([folder, path]) == path for path in self._read_only + self._writable)
        return [*words, "--chdir", folder if seen else "/", "--"]


def _bytes(name: str, value: int | str | None) -> int | None:
    """Return a number of bytes, which may be written with K, M or G.

    :raises ValueError: for other text.
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"([0-9]{1,15})\s*([kmg]?)(?:i?b)?", value.strip().lower())
    if found is None:
        raise ValueError(f"{name}= is a number of bytes such as 536870912 or '512M', not {value!r}")
    return int(found[1]) * _UNITS[found[2]]
