"""The options of a gateway as a whole, the object "gateway" of a configuration, and what a server is given of them."""

from __future__ import annotations

import os
import re
from typing import Any

from ..protocol.limits import LIMITS
from ..server.seal import ENVIRONMENT
from .checks import (
    Kind,
    Option,
    Place,
    anything,
    fields,
    flag,
    hint,
    json_object,
    many,
    mapping,
    members,
    number,
    obj,
    one_of,
    path,
    text,
    texts,
    url,
    whole,
)

Message = dict[str, Any]

_ROLES = Option(texts)
_OF_TOKENS = {
    "audience": Option(texts),
    "roles": _ROLES,
    "id": Option(text),
    "scopes": Option(texts),
    "leeway": Option(number(0, 300), name="leeway_s"),
    "dpop": Option(lambda value, place: value if value == "required" else flag(value, place)),
    "dpopNonce": Option(flag),
    "privateAddresses": Option(flag),
}
_OF_PROXIES = {"granted": Option(texts), "issuer": Option(text)}


def _keys(value: Any, place: Place) -> Any:
    """Read the path of a file of keys, or the keys themselves."""
    return path(value, place) if isinstance(value, str) else json_object(value, place)


# The verifiers by their name in a configuration, with the class of `minimcp.auth` and how its options are read.
_VERIFIERS: dict[str, tuple[str, Kind]] = {
    "keys": ("Keys", lambda value, place: {"source": _keys(value, place)}),
    "jwt": (
        "Jwt",
        obj(
            {
                "issuer": Option(texts, required=True),
                "jwks": Option(anything),
                "algorithms": Option(texts),
                **_OF_TOKENS,
            }
        ),
    ),
    "introspection": (
        "Introspection",
        obj(
            {
                "issuer": Option(text, required=True),
                "clientId": Option(text, required=True),
                "clientSecret": Option(text, required=True),
                "endpoint": Option(url("http", "https")),
                "keep": Option(number(0, 3600), name="keep_s"),
                **_OF_TOKENS,
            }
        ),
    ),
    "remoteUser": (
        "RemoteUser",
        obj({"header": Option(text, required=True), "roles": Option(text), **_OF_PROXIES}),
    ),
    "proxyCertificate": ("ProxyCertificate", obj({"header": Option(text), "verified": Option(text), **_OF_PROXIES})),
    "clientCertificate": ("ClientCertificate", obj({"roles": _ROLES})),
}


def _auth(value: Any, place: Place) -> list[Any]:
    """Read who may call: "public", or a list of verifiers, each as its name and the options of its class."""
    found: list[Any] = []
    for number_, each in enumerate(value if isinstance(value, list) else [value]):
        where = place.at(number_) if isinstance(value, list) else place
        if each == "public":
            found.append("public")
            continue
        if isinstance(each, str):
            raise where.wrong(f'must be an object such as {{"keys": "keys.json"}}, or "public", not {each[:100]!r}')
        for name, options in members(each, where, _VERIFIERS).items():
            found.append((name, _VERIFIERS[name][1](options, where.at(name))))
    if not found:
        raise place.wrong('names no verifier; write "public" for a gateway that everybody may use')
    return found


def _listed(value: Any, place: Place) -> list[str]:
    """Read a list of texts as a list, as messages show it."""
    return list(texts(value, place))


_RULE = {
    **{name: Option(_listed) for name in ("allow", "deny", "roles", "scopes", "principals", "servers")},
    "arguments": Option(mapping(_listed)),
}
_RATE = {
    "tools": Option(texts),
    "resources": Option(texts),
    "prompts": Option(texts),
    "servers": Option(texts),
    "methods": Option(texts),
    "per": Option(one_of("principal", "address", "all")),
    "limit": Option(text, required=True),
}
_SANITIZE = {
    "maxBytes": Option(whole(1024, 1024**3)),
    "hidden": Option(flag),
    "secrets": Option(flag),
    "patterns": Option(texts),
}


def _sanitize(value: Any, place: Place) -> Any:
    return fields(value, place, _SANITIZE) if isinstance(value, dict) else flag(value, place)


def _file_and(options: dict[str, Option]) -> Kind:
    """Make the kind of an object with a file and further options; a text is the file."""
    known = {"file": Option(_kept, required=True), **options}
    return lambda value, place: fields({"file": value} if isinstance(value, str) else value, place, known, True)


def _kept(value: Any, place: Place) -> str:
    """Read the path of a file that is made where there is none."""
    found = path(value, place)
    folder = os.path.dirname(os.path.abspath(found))
    if not os.path.isdir(folder):
        raise place.wrong(f"is in a folder that there is not: {folder}")
    return found


def _log(value: Any, place: Place) -> Any:
    if isinstance(value, str):
        return value if value in ("stderr", "") else _kept(value, place)
    return "stderr" if flag(value, place) else ""


def _endpoint_path(value: Any, place: Place) -> str:
    found = text(value, place)
    if not re.fullmatch(r"(?:/[A-Za-z0-9._~-]+)+", found) or re.search(r"/\.\.?(?:/|\Z)", found):
        raise place.wrong("must be a path such as /mcp")
    return found


def _limits(value: Any, place: Place) -> Message:
    found = members(value, place, LIMITS)
    return {name: number(1, 2**40, "items, bytes or seconds")(each, place.at(name)) for name, each in found.items()}


def _search(value: Any, place: Place) -> Any:
    """Read whether tools are searched, or from how many on."""
    return value if isinstance(value, bool) else whole(1, 10_000)(value, place)


_TOOL = {
    "name": Option(text),
    "title": Option(text),
    "description": Option(text),
    "fixed": Option(json_object),
    "hidden": Option(texts),
}
_ENDPOINT = {
    "servers": Option(texts),
    "tools": Option(lambda value, place: (mapping(obj(_TOOL)) if isinstance(value, dict) else texts)(value, place)),
    "resources": Option(texts),
    "prompts": Option(texts),
    "allow": Option(texts),
    "deny": Option(texts),
    "search": Option(_search),
    "instructions": Option(text),
}


def _endpoints(value: Any, place: Place) -> Message:
    found: Message = mapping(obj(_ENDPOINT))(value, place)
    for name, each in found.items():
        if not re.fullmatch(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}", name):
            raise place.wrong(f"has an endpoint {name[:100]!r}, which cannot begin a path")
        place.at(name).make(_check_view, each)
    return found


def _check_view(spec: Message) -> None:
    from ..server.registry import Registry
    from ..views.view import View

    View(Registry(lambda kind: None), spec, "it")


_OPTIONS = {
    "name": Option(text, "gateway"),
    "version": Option(text),
    "title": Option(text),
    "instructions": Option(text),
    "host": Option(text, "127.0.0.1"),
    "port": Option(whole(0, 65535), 8000),
    "path": Option(_endpoint_path, "/mcp"),
    "publicUrl": Option(url("http", "https")),
    "trustedProxy": Option(texts, ()),
    "allowedHosts": Option(texts),
    "allowedOrigins": Option(texts),
    "tls": Option(obj({"cert": Option(path, required=True), "key": Option(path, required=True), "ca": Option(path)})),
    "secret": Option(texts),
    "auth": Option(_auth),
    "rules": Option(many(obj(_RULE))),
    "onDenied": Option(one_of("hide", "challenge"), "hide"),
    "rates": Option(many(obj(_RATE)), []),
    "endpoints": Option(_endpoints, {}),
    "search": Option(_search, False),
    "audit": Option(
        _file_and(
            {
                "key": Option(text),
                "arguments": Option(flag, False),
                "maxBytes": Option(whole(4096, 2**40), 0),
                "fsync": Option(flag, False),
            }
        )
    ),
    "pins": Option(
        _file_and({"mode": Option(one_of("warn", "block"), "warn"), "new": Option(one_of("allow", "block"), "allow")})
    ),
    "sanitize": Option(_sanitize),
    "rest": Option(flag, False),
    "metrics": Option(flag, False),
    "status": Option(flag, True),
    "statusRoles": Option(texts, ()),
    "log": Option(_log, ""),
    "redis": Option(url("redis", "rediss", "unix")),
    "peerUrl": Option(url("http", "https")),
    "listTimeout": Option(number(0.1, 60), 5.0),
    "limits": Option(_limits),
}


def read_options(value: Any, place: Place, servers: list[str]) -> Message:
    """Read the object "gateway", with the default of each option that is not given.

    :param servers: the names of the servers.
    :raises ValueError: naming the option that is wrong.
    """
    found = fields({} if value is None else value, place, _OPTIONS, defaults=True)
    for name, endpoint in found["endpoints"].items():
        for server in endpoint.get("servers", ()):
            if "*" not in server and server not in servers:
                where = place.at("endpoints").at(name).at("servers")
                raise where.wrong(f"has {server[:100]!r}, which is no server; {hint(server, servers)}")
    place.at("auth").make(_check_auth, found)
    place.at("rules").make(make_policy, found)
    place.at("sanitize").make(make_sanitizer, found)
    place.at("rates").make(_check_rates, found)
    if found["pins"] and found["pins"]["new"] == "block" and found["pins"]["mode"] != "block":
        raise place.at("pins").at("new").wrong('can be block in the mode "block" alone')
    if found["peer_url"] and not found["secret"] and not os.environ.get(ENVIRONMENT):
        raise place.at("peerUrl").wrong(f"needs a secret that all gateways have: gateway.secret, or {ENVIRONMENT}")
    if found["rest"] and "tools" in found["endpoints"]:
        raise place.at("endpoints").wrong("has 'tools', where tools are used over plain HTTP; name it in another way")
    if found["secret"] and any(len(each.encode()) < 16 for each in found["secret"]):
        raise place.at("secret").wrong("must have at least 16 bytes; make one with secrets.token_hex()")
    return found


def _check_auth(options: Message) -> None:
    auth = make_auth(options)
    if auth is not None and auth != "public":
        from ..auth.protected import ProtectedServer

        if options["public_url"] is None and any(getattr(each, "needs_public_url", False) for each in auth):
            raise ValueError('name the "audience" of the tokens, or "publicUrl" of the gateway')
        if not options["trusted_proxy"] and any(getattr(each, "needs_trusted_proxy", False) for each in auth):
            raise ValueError('name the proxy that says who is calling: "trustedProxy" of the gateway')
        ProtectedServer(auth, options["public_url"], options["trusted_proxy"])


def _check_rates(options: Message) -> None:
    if options["rates"]:
        from ..auth.rates import Rates

        Rates(options["rates"])


def make_auth(options: Message) -> Any:
    """Make what `Server(auth=...)` takes: None, "public", or a list of verifiers.

    :raises ValueError: for options that a verifier does not take.
    """
    found = options.get("auth")
    if not found:
        return None
    if found == ["public"]:
        return "public"
    from .. import auth

    return [each if each == "public" else getattr(auth, _VERIFIERS[each[0]][0])(**each[1]) for each in found]


def make_policy(options: Message) -> Any:
    """Make the `Rules` of a gateway, None where it has none.

    :raises ValueError: for a rule that is none.
    """
    if options.get("rules") is None:
        return None
    from ..auth.policy import Rules

    return Rules(*options["rules"])


def make_sanitizer(options: Message) -> Any:
    """Make the `Sanitizer` of a gateway, None where results leave as they are."""
    given = options.get("sanitize")
    if given is None or given is False:
        return None
    from ..server.sanitize import Sanitizer

    return Sanitizer(**given) if isinstance(given, dict) else Sanitizer()


def server_options(options: Message) -> Message:
    """Return the keywords of `Server` that come from a configuration; what it does not name is left out."""
    plain = ("name", "version", "title", "instructions", "public_url", "trusted_proxy", "on_denied", "limits")
    found = {name: options.get(name) for name in (*plain, "secret", "allowed_hosts", "allowed_origins")}
    found.update(auth=make_auth(options), policy=make_policy(options), sanitize=make_sanitizer(options))
    return {name: value for name, value in found.items() if value is not None}
