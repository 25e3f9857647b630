"""The command line: commands, options, and exit codes.

0    success
1    no connection, or the server answered with an error
2    wrong usage
3    the tool failed
130  Ctrl-C
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import Any, NoReturn, Optional

from .. import __version__
from ..protocol import spec
from .gateway_command import add_gateway, gateway

_TARGET = (
    "the server: a URL, a Python file with a minimcp Server (FILE.py or FILE.py:OBJECT), a .json file of the "
    "mcpServers form, or a command in quotes; a command without quotes comes last, after --, in place of TARGET"
)
_TRACE = "--trace shows all messages on standard error, --trace=FILE appends them to a file"
_USES = """\
what people do:
  minimcp list server.py                  see what a server offers
  minimcp describe server.py add          see one tool in full, with a call to copy
  minimcp call server.py add a=1 b=2      call a tool
  minimcp read server.py weather://Oslo   read a resource
  minimcp run server.py                   serve it over stdio, as hosts start it
  minimcp run server.py --http 8000       serve it over HTTP
  minimcp gateway mcp.json                serve all servers of a file as one
  minimcp bridge http://localhost:8000/mcp  serve a server of HTTP over stdio
A server is a Python file, a URL (http://localhost:8000/mcp) or a command (minimcp list -- npx some-server).

"""
_CODES = "exit codes: 0 done, 1 no connection or an error of the server, 2 wrong usage, 3 the tool failed"


def main(arguments: Optional[list[str]] = None) -> int:
    """Run a command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    command: Optional[list[str]] = None
    if "--" in words and words[0] != "run":
        command = words[words.index("--") + 1 :]
        words = words[: words.index("--")]
    parser, commands = _parsers(command is None)
    if words[:1] in ([], ["help"]):
        commands.get(words[1] if len(words) > 1 else "", parser).print_help()
        return 0
    if words and words[0] in commands:
        # Options may stand anywhere between the other words.
        parser = commands[words[0]]
        options = parser.parse_intermixed_args(
            [f"{word}=-" if word in ("--trace", "--login") else word for word in words[1:]]
        )
        if command is not None:
            options.target = command
        options.command = words[0]
    else:
        options = parser.parse_args(words)
    if options.command == "run":
        _check_run(parser, options)
        from .run import run

        return run(options)
    if options.command == "gateway":
        return gateway(options)
    if options.command == "bridge":
        if options.http is None and options.public:
            parser.error("--public goes with --http PORT")
        from .bridge import bridge

        return bridge(options)
    if options.command == "token":
        from .token import token

        return token(options)
    if options.command == "audit":
        from .audit_log import audit

        return audit(options)
    from .commands import run_command

    try:
        code = run_command(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of the output has closed it; at exit it is flushed once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def _check_run(parser: argparse.ArgumentParser, options: Any) -> None:
    """Refuse options of `run` that would protect nothing, or open nothing."""
    secured = options.tls_cert or options.tls_key or options.tls_ca
    if options.http is None and (secured or options.public):
        parser.error("--tls-cert, --tls-key, --tls-ca and --public go with --http PORT")
    if secured and not (options.tls_cert and options.tls_key):
        parser.error("TLS needs --tls-cert FILE and --tls-key FILE; --tls-ca FILE goes with them")


def _parsers(with_target: bool) -> tuple[argparse.ArgumentParser, dict[str, Any]]:
    parser = _Parser(
        prog="minimcp",
        description="Serve a Model Context Protocol server, or use one.",
        epilog=_USES + _CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"minimcp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    text = "serve a server from a Python file, over stdio or HTTP"
    run = commands.add_parser("run", help=text, description=text[0].upper() + text[1:] + ".")
    run.add_argument("target", metavar="FILE[:OBJECT]", help="the file, and its Server if there are several")
    run.add_argument("--http", type=_port, metavar="PORT", help="serve Streamable HTTP on this port instead of stdio")
    run.add_argument("--trace", metavar="FILE", help=_TRACE)
    run.add_argument("-v", "--verbose", action="store_true", help="show every request on standard error")
    _add_way_in(run)
    run.add_argument("--tls-cert", metavar="FILE", help="serve https with this certificate chain, and --tls-key")
    run.add_argument("--tls-key", metavar="FILE", help="the key of the certificate, in a PEM file")
    run.add_argument("--tls-ca", metavar="FILE", help="clients need a certificate of one of these authorities")

    add_gateway(commands, _port, _TRACE)

    text = "serve one server over another transport: over stdio, or over HTTP with --http, in every revision"
    bridge = commands.add_parser("bridge", help=text, description=text[0].upper() + text[1:] + ".")
    if with_target:
        bridge.add_argument("target", metavar="TARGET", help=_TARGET)
    bridge.add_argument("--http", type=_port, metavar="PORT", help="serve Streamable HTTP on this port, not stdio")
    _add_way_in(bridge)
    _add_target_options(bridge)

    text = "make an API key in a file for minimcp.auth.Keys, and show it once"
    token = commands.add_parser("token", help=text, description=text[0].upper() + text[1:] + ".")
    token.add_argument("name", metavar="NAME", nargs="?", help="the name of the key's owner")
    token.add_argument("--file", default="keys.json", metavar="FILE", help="the file of keys (default: keys.json)")
    token.add_argument("--role", action="append", metavar="ROLE", help="a role of the owner; may be repeated")
    token.add_argument("--scope", action="append", metavar="SCOPE", help="a scope; may be repeated")
    token.add_argument("--days", type=float, metavar="N", help="the days until the key expires (default: never)")
    token.add_argument("--list", action="store_true", help="list the keys and their last use instead")
    token.add_argument("--revoke", action="store_true", help="revoke the key of NAME instead")

    text = "verify an audit log that minimcp.auth.Chain wrote: whether records were changed, removed or put in"
    audit = commands.add_parser("audit", help=text, description=text[0].upper() + text[1:] + ".")
    audit.add_argument("action", metavar="verify", choices=["verify"])
    audit.add_argument("file", metavar="FILE", help="the log; its older files beside it are verified as well")
    audit.add_argument("--key-env", metavar="NAME", help="the environment variable with the key of the log")
    audit.add_argument("--known", metavar="HASH", help="the hash of a record that was noted earlier and must be there")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=_CODES)
        if with_target:
            command.add_argument("target", metavar="TARGET", help=_TARGET)
        _add_options(command)
        return command

    add("list", "show what a server offers: tools, resources, prompts")

    describe = add("describe", "show one tool in full: its arguments, its result, and a call to copy")
    describe.add_argument("tool", metavar="NAME", nargs="?", help="the name of the tool")

    call = add("call", "call a tool and show its result")
    call.add_argument("tool", metavar="TOOL", nargs="?", help="the name of the tool; without it they are named")
    text = "an argument, by the tool's schema; KEY:=JSON for JSON as it is; - for a JSON object on standard input"
    call.add_argument("words", metavar="KEY=VALUE", nargs="*", help=text)
    call.add_argument("--arguments", metavar="JSON", help="a JSON object with arguments")
    call.add_argument(
        "--answer",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="the answer to a field of the questions that the tool asks; may be repeated",
    )
    call.add_argument("-o", "--output", metavar="FILE", help="write the first image, sound or other bytes to a file")

    read = add("read", "write a resource, text or bytes, to standard output")
    read.add_argument("uri", metavar="URI")

    prompt = add("prompt", "show a prompt")
    prompt.add_argument("name", metavar="NAME")
    prompt.add_argument("words", metavar="KEY=VALUE", nargs="*", help="an argument, which is always text")
    return parser, commands.choices


class _Parser(argparse.ArgumentParser):
    """A parser that says how arguments of a tool are written when one was written as an option."""

    def error(self, message: str) -> NoReturn:
        """Show what is wrong, and exit."""
        found = re.search(r"unrecognized arguments: --([A-Za-z_]\w*)", message)
        if found and self.prog.endswith((" call", " prompt")):
            message += f"; an argument of a tool or prompt is written {found[1]}=VALUE"
        super().error(message)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a number up to 65535")
    return int(text)


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


def _add_options(parser: Any) -> None:
    parser.add_argument("--json", action="store_true", help="write the whole result as JSON")
    _add_target_options(parser)


def _add_target_options(parser: Any) -> None:
    modes = ("auto", "modern", "legacy", *spec.VERSIONS)
    parser.add_argument("--server", metavar="NAME", help="which server of a .json file")
    parser.add_argument("--mode", default="auto", choices=modes, metavar="MODE", help=f"one of {', '.join(modes)}")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds to wait (default: 60)")
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
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help=_TRACE,
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the server logs")
