"""The options of every command, and what is said of words that are none."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any, NoReturn, Optional

from .. import __version__
from ..protocol import spec
from .gateway_command import add_gateway
from .hosts import HOSTS

_TARGET = (
    "the server: a URL, a Python file with a minimcp Server (FILE.py or FILE.py:OBJECT), a .json file of the "
    "mcpServers form, or a command in quotes; a command without quotes comes last, after --, in place of TARGET"
)
_FILE = "the file, and the name of its Server if there are several; what follows -- is sys.argv of the file"
_TRACE = (
    "--trace shows all messages on standard error, --trace=pretty a short line for each, --trace=FILE appends them to "
    "a file"
)
_USES = """\
what people do:
  minimcp list server.py                  see what a server offers
  minimcp describe server.py add          see one tool in full, with a call to copy
  minimcp call server.py add a=1 b=2      call a tool
  minimcp read server.py weather://Oslo   read a resource
  minimcp dev server.py --http 8000       serve it, and again whenever it changes
  minimcp run server.py                   serve it over stdio, as hosts start it
  minimcp run server.py --http 8000       serve it over HTTP
  minimcp worker server.py                run its tasks, which other processes hand over
  minimcp install cursor server.py        write it into the configuration of a host
  minimcp gateway mcp.json                serve all servers of a file as one
  minimcp bridge http://localhost:8000/mcp  serve a server of HTTP over stdio
A server is a Python file, a URL (http://localhost:8000/mcp) or a command (minimcp list -- npx some-server).

"""
_MOST_GRACE_S = 86_400.0
_CODES = "exit codes: 0 done, 1 no connection or an error of the server, 2 wrong usage, 3 the tool failed"
# Commands whose words after -- are a server, and those whose words after it are for the program that they run.
_WITH_TARGET = ("list", "describe", "call", "task", "read", "prompt", "bridge", "install")
_WITH_WORDS = ("run", "dev", "worker", "completion")


def parse(words: list[str]) -> Any:
    """Return the options that words say, or None after showing help.

    :raises SystemExit: with code 2 for words that make no sense, after saying so.
    """
    after: Optional[list[str]] = None
    if "--" in words:
        after = words[words.index("--") + 1 :]
        words = words[: words.index("--")]
    name = words[0] if words else "help"
    parser, commands = parsers(after is None or name not in _WITH_TARGET)
    if name == "help":
        _known(parser, commands, words[1:2])
        commands.get(words[1] if len(words) > 1 else "", parser).print_help()
        return None
    if name.startswith("-"):
        parser.parse_args(words)
    _known(parser, commands, [name])
    parser = commands[name]
    if after is not None and name not in (*_WITH_TARGET, *_WITH_WORDS):
        parser.error(f"{name} takes no words after --")
    # Options may stand anywhere between the other words.
    options = parser.parse_intermixed_args(
        [f"{word}=-" if word in ("--trace", "--login") else word for word in words[1:]]
    )
    options.command = name
    if name in _WITH_WORDS:
        options.words = after or []
    elif after is not None:
        options.target = after
    _check(parser, options)
    return options


def _known(parser: argparse.ArgumentParser, commands: dict[str, Any], names: list[str]) -> None:
    """Refuse a command that there is not."""
    for name in names:
        if name in commands:
            continue
        near = difflib.get_close_matches(name, commands, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(commands)}"
        if name.partition(":")[0].endswith(".py") or "://" in name:
            hint = f"a command comes first, as in: minimcp list {name}"
        parser.error(f"there is no command {name!r}; {hint}")


def _check(parser: argparse.ArgumentParser, options: Any) -> None:
    """Refuse options that would protect nothing, or open nothing."""
    if options.command in ("run", "dev", "bridge") and options.http is None:
        given = {f"--{name.replace('_', '-')}": getattr(options, name, None) for name in _OF_HTTP}
        if any(given.values()):
            parser.error(f"{next(name for name in given if given[name])} goes with --http PORT")
    if options.command == "run":
        secured = options.tls_cert or options.tls_key or options.tls_ca
        if secured and not (options.tls_cert and options.tls_key):
            parser.error("TLS needs --tls-cert FILE and --tls-key FILE; --tls-ca FILE goes with them")


_OF_HTTP = ("tls_cert", "tls_key", "tls_ca", "public", "path", "allow_host")


def parsers(with_target: bool = True) -> tuple[argparse.ArgumentParser, dict[str, Any]]:
    """Return the parser of all commands, and that of each by its name.

    :param with_target: whether the server stands among the words; otherwise it follows them, after --.
    """
    parser = _Parser(
        prog="minimcp",
        description="Serve a Model Context Protocol server, or use one.",
        epilog=_USES + _CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"minimcp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, more: str = "", **options: Any) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.{more}", **options
        )
        return made

    def using(name: str, text: str) -> argparse.ArgumentParser:
        made = add(name, text, epilog=_CODES)
        if with_target:
            made.add_argument("target", metavar="TARGET", help=_TARGET)
        made.add_argument("--json", action="store_true", help="write the whole result as JSON")
        _add_target_options(made)
        return made

    using("list", "show what a server offers: tools, resources, prompts")
    made = using("describe", "show a tool, prompt or resource in full, with a command to copy")
    made.add_argument("name", metavar="NAME", nargs="?", help="the name, or the URI of a resource")
    _add_call(using("call", "call a tool and show its result"))
    _add_task(
        using("task", "come back to a task, which a server has made of a call: to its result, or to how it stands")
    )
    made = using("read", "write a resource, text or bytes, to standard output")
    made.add_argument("uri", metavar="URI", nargs="?", help="the URI; without it those of the server are named")
    made.add_argument("-o", "--output", metavar="FILE", help="write the bytes to a file, not to standard output")
    made = using("prompt", "show a prompt")
    made.add_argument("name", metavar="NAME", nargs="?", help="the name; without it those of the server are named")
    made.add_argument("words", metavar="KEY=VALUE", nargs="*", help="an argument, which is always text")

    made = add("run", "serve a server from a Python file, over stdio or HTTP")
    _add_serving(made)
    made.add_argument("--tls-cert", metavar="FILE", help="serve https with this certificate chain, and --tls-key")
    made.add_argument("--tls-key", metavar="FILE", help="the key of the certificate, in a PEM file")
    made.add_argument("--tls-ca", metavar="FILE", help="clients need a certificate of one of these authorities")

    text = "serve a Python file, and start it again whenever it or a Python file beside it changes"
    more = (
        " Clients stay connected. What belongs to HTTP alone, such as auth= and routes of the server, is left out: that"
        " is for the command run."
    )
    made = add("dev", text, more)
    _add_serving(made)
    made.add_argument(
        "--watch",
        action="append",
        default=[],
        metavar="PATH",
        help="look at this file, or the Python files of this folder, too; may be repeated",
    )

    text = "run the tasks of a server from a Python file, for processes that only hand them over"
    made = add("worker", text, " They need a file or a Redis in common. It stops at SIGTERM or Ctrl-C.")
    made.add_argument("target", metavar="FILE[:OBJECT]", help=_FILE)
    number = "how many run at once, beside those that wait for an answer (default: as Tasks(workers=) says, or 16)"
    made.add_argument("--workers", type=_positive, metavar="N", help=number)
    text = "how long what runs may go on once it stops (default: 10)"
    made.add_argument("--grace", type=_grace, default=10.0, metavar="SECONDS", help=text)
    made.add_argument("-v", "--verbose", action="store_true", help="show what the tools log on standard error")

    text = "write a server into the configuration of a host, such as Claude or an editor"
    _add_install(add("install", text, " Everything else in the file stays, and the change can be undone."), with_target)

    add_gateway(commands, _port, _TRACE)

    made = add("bridge", "serve one server over another transport: over stdio, or over HTTP with --http")
    if with_target:
        made.add_argument("target", metavar="TARGET", help=_TARGET)
    made.add_argument("--http", type=_port, metavar="PORT", help="serve Streamable HTTP on this port, not stdio")
    _add_way_in(made)
    _add_target_options(made)

    made = add("token", "make an API key in a file for minimcp.auth.Keys, and show it once")
    made.add_argument("name", metavar="NAME", nargs="?", help="the name of the key's owner")
    made.add_argument("--file", default="keys.json", metavar="FILE", help="the file of keys (default: keys.json)")
    made.add_argument("--role", action="append", metavar="ROLE", help="a role of the owner; may be repeated")
    made.add_argument("--scope", action="append", metavar="SCOPE", help="a scope; may be repeated")
    made.add_argument("--days", type=float, metavar="N", help="the days until the key expires (default: never)")
    made.add_argument("--list", action="store_true", help="list the keys and their last use instead")
    made.add_argument("--revoke", action="store_true", help="revoke the key of NAME instead")

    made = add("audit", "verify an audit log of minimcp.auth.Chain: whether records were changed, removed or put in")
    made.add_argument("action", metavar="verify", choices=["verify"])
    made.add_argument("file", metavar="FILE", help="the log; its older files beside it are verified as well")
    made.add_argument("--key-env", metavar="NAME", help="the environment variable with the key of the log")
    made.add_argument("--known", metavar="HASH", help="the hash of a record that was noted earlier and must be there")
    made = add(
        "completion",
        "print a script that completes commands and options in a shell",
        ' For bash put eval "$(minimcp completion bash)" into ~/.bashrc; for zsh the same, with zsh, into ~/.zshrc, '
        "behind compinit; for fish: minimcp completion fish > ~/.config/fish/completions/minimcp.fish",
    )
    made.add_argument("shell", metavar="SHELL", choices=["bash", "zsh", "fish"], help="bash, zsh or fish")
    return parser, commands.choices


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, and what to write."""

    def error(self, message: str) -> NoReturn:
        """Show what is wrong, and exit."""
        found = re.search(r"unrecognized arguments:.*?(--?[A-Za-z][\w-]*)(?:[= ]([^-\s]\S*))?", message)
        if found:
            message = f"{found[1]} is no option"
            near = difflib.get_close_matches(found[1], self._option_string_actions, 1, 0.75)
            if near:
                message += f"; did you mean {near[0]}?"
            elif self.prog.endswith((" call", " prompt")) and found[1].startswith("--"):
                message += f"; an argument is written {found[1][2:]}={found[2] or 'VALUE'}"
        missing = re.match(r"the following arguments are required: (.*)", message)
        if missing:
            # What may be left out stands there, too.
            names = [name for name in missing[1].split(", ") if name != "KEY=VALUE"]
            message = f"{', '.join(names)} {'are' if len(names) > 1 else 'is'} missing"
        message = re.sub(r"^argument (?=-)", "", message)
        message = re.sub(r"^argument (\S+): invalid choice: ('.*?') \(choose from (.*)\)$", _no_choice, message)
        more = re.match(r"unrecognized arguments: (.*)", message)
        if more:
            message = f"{more[1]!r} is too much; a target of several words is quoted, or stands at the end after --"
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help tells more)\n")


def _no_choice(found: re.Match[str]) -> str:
    names = found[3].replace("'", "")
    return f"{found[2]} is no {found[1]}; there are {names}" if "," in names else f"write {names}, not {found[2]}"


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a number up to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _grace(text: str) -> float:
    seconds = _seconds(text)
    if not 0 <= seconds <= _MOST_GRACE_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {_MOST_GRACE_S:.0f}")
    return seconds


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not the path of a URL, such as /mcp")
    return text


def _add_call(call: argparse.ArgumentParser) -> None:
    call.add_argument("tool", metavar="TOOL", nargs="?", help="the name of the tool; without it they are named")
    text = "an argument, by the tool's schema; KEY:=JSON for JSON as it is; - for a JSON object on standard input"
    call.add_argument("words", metavar="KEY=VALUE", nargs="*", help=text)
    call.add_argument("--arguments", metavar="JSON", help="a JSON object with arguments")
    text = (
        "write the id of the task that the server makes of the call, and do not wait; a server that this command "
        "starts ends with it, and goes on later only with tasks that it keeps in a file"
    )
    call.add_argument("--detach", action="store_true", help=text)
    _add_results(call)


def _add_task(task: argparse.ArgumentParser) -> None:
    task.add_argument("id", metavar="ID", help="the id of the task, from call --detach")
    what = task.add_mutually_exclusive_group()
    what.add_argument("--status", action="store_true", help="show how it stands, and do not wait")
    what.add_argument("--cancel", action="store_true", help="cancel it, and show how it stands")
    _add_results(task)


def _add_results(parser: argparse.ArgumentParser) -> None:
    """Add what commands have that wait for the result of a tool."""
    parser.add_argument(
        "--answer",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="the answer to a field of the questions that the tool asks; may be repeated; accept or decline by "
        "themselves answer all questions that are not answered otherwise",
    )
    text = "write the images, sounds and other bytes to FILE, further ones to FILE-2, FILE-3 and so on"
    parser.add_argument("-o", "--output", metavar="FILE", help=text)


def _add_install(parser: argparse.ArgumentParser, with_target: bool) -> None:
    titles = ", ".join(HOSTS)
    parser.add_argument("host", metavar="HOST", choices=list(HOSTS), help=f"one of {titles}; json prints the entry")
    if with_target:
        parser.add_argument("target", metavar="TARGET", nargs="?", help=_TARGET)
    parser.add_argument("--name", metavar="NAME", help="the name that it has there (default: the server's own)")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of the process; may be repeated"
    )
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a header for a URL; may be repeated"
    )
    parser.add_argument("--server", metavar="NAME", help="which server of a .json file; all of them become one gateway")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--file", metavar="FILE", help="the configuration to change (default: the user's own)")
    where.add_argument("--project", metavar="FOLDER", help="change the configuration of a project, as in --project .")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--print", action="store_true", help="print what would be written, and write nothing")
    what.add_argument("--undo", action="store_true", help="put the entry back to what it was, or take it out")
    parser.add_argument("--no-check", action="store_true", help="do not start the server first")


def _add_serving(parser: argparse.ArgumentParser) -> None:
    """Add what commands have that serve a Python file."""
    parser.add_argument("target", metavar="FILE[:OBJECT]", help=_FILE)
    parser.add_argument("--http", type=_port, metavar="PORT", help="serve Streamable HTTP on this port, not stdio")
    parser.add_argument("--path", type=_path, metavar="PATH", help="the path of the endpoint (default: /mcp)")
    parser.add_argument("--trace", metavar="FILE", help=_TRACE)
    parser.add_argument("-v", "--verbose", action="store_true", help="show every request on standard error")
    _add_way_in(parser)


def _add_way_in(parser: Any) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="serve requests for this host name, such as a proxy's, beside localhost; may be repeated",
    )
    parser.add_argument(
        "--public", action="store_true", help="everybody may call a server without auth=, also from other machines"
    )


def _add_target_options(parser: Any) -> None:
    modes = ("auto", "modern", "legacy", *spec.VERSIONS)
    parser.add_argument("--server", metavar="NAME", help="which server of a .json file")
    parser.add_argument("--mode", default="auto", choices=modes, metavar="MODE", help=f"one of {', '.join(modes)}")
    parser.add_argument("--timeout", type=_seconds, default=60.0, metavar="S", help="seconds to wait (default: 60)")
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a header for HTTP; may be repeated"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable for a process; may be repeated"
    )
    parser.add_argument(
        "--sandbox",
        metavar="OPTIONS",
        help="bounds of a process, such as memory=512M,cpu_s=60 or network=none,read_only=FOLDER: with network, "
        "read_only or writable it sees programs and the named paths alone",
    )
    # These two are written with an equals sign, so that they never take the target for the file.
    parser.add_argument(
        "--login",
        metavar="FILE",
        help="--login signs in with a browser where the server wants it, --login=FILE keeps the tokens in a file",
    )
    parser.add_argument("--trace", metavar="FILE", help=_TRACE)
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the server logs")
