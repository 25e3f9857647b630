"""Pages of MCP Apps: their words and shapes, and what both a server and a host check of them.

Spec: EXT-092 to EXT-108
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, Optional, TypedDict

Message = dict[str, Any]

IDENTIFIER = "io.modelcontextprotocol/ui"
VERSION = "2026-01-26"
SCHEME = "ui://"
MEDIA_TYPE = "text/html;profile=mcp-app"
AUDIENCES = ("model", "app")
MAX_PAGE_BYTES = 16 * 1024 * 1024
# Where earlier hosts looked for the page of a tool. Spec: EXT-099
_FLAT_KEY = "ui/resourceUri"

# The lists of domains, and the directives of a Content-Security-Policy that they open.
_DIRECTIVES = {
    "connectDomains": ("connect-src",),
    "resourceDomains": ("script-src", "style-src", "img-src", "font-src", "media-src"),
    "frameDomains": ("frame-src",),
    "baseUriDomains": ("base-uri",),
}
# The permissions, and the features of a Permissions-Policy that they stand for.
_FEATURES = {
    "camera": "camera",
    "microphone": "microphone",
    "geolocation": "geolocation",
    "clipboardWrite": "clipboard-write",
}
_MOST_DOMAINS = 100  # of one list: a policy goes into a header
# Nothing that could leave an attribute or a path that it is put into.
_URI = re.compile(r"ui://[^\s\x00-\x20\x7f\"'<>\\^`{|}]{1,2000}\Z")
_DOTS = re.compile(r"/(?:\.|%2e){1,2}(?:[/?#]|\Z)", re.IGNORECASE)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# An origin as a source of a policy: a wildcard leaves at least two labels, and nothing follows that ends the directive.
_ORIGIN = re.compile(
    rf"(?:https?|wss?)://(?:\*\.{_LABEL}(?:\.{_LABEL})+|{_LABEL}(?:\.{_LABEL})*)(?::(?:[0-9]{{1,5}}|\*))?/?\Z"
)
_DOMAIN = re.compile(r"[A-Za-z0-9.:/_-]{1,253}\Z")
_DOCUMENT = re.compile(r"\ufeff?(?:\s|<!--(?:[^-]|-(?!->))*-->)*<!doctype\s+html[\s>]", re.IGNORECASE)


class ToolUi(TypedDict, total=False):
    """The page that a tool's result is shown in, and who may call the tool: "model", "app" (the page), or both."""

    resourceUri: str
    visibility: Sequence[Literal["model", "app"]]


class AppCsp(TypedDict, total=False):
    """Origins that a page uses, such as `https://api.example` or `https://*.example.com`; without them it has none."""

    connectDomains: Sequence[str]
    resourceDomains: Sequence[str]
    frameDomains: Sequence[str]
    baseUriDomains: Sequence[str]


class AppPermissions(TypedDict, total=False):
    """Features of the browser that a page asks for, each with `{}`."""

    camera: Message
    microphone: Message
    geolocation: Message
    clipboardWrite: Message


class PageUi(TypedDict, total=False):
    """Settings of a page: what it loads and needs, the origin that it wants, and whether it likes to have a border."""

    csp: AppCsp
    permissions: AppPermissions
    domain: str
    prefersBorder: bool


# For servers


def check_page_uri(uri: object) -> None:
    """Check the URI of a page. Spec: EXT-094

    :raises ValueError: when hosts could not use it, or could read another one in it.
    """
    if not is_page_uri(uri):
        raise ValueError(f"{str(uri)[:200]!r} is not the URI of a page; write it like ui://clock/page.html")


def tool_meta(name: str, ui: str | ToolUi, meta: Message | None) -> Message:
    """Return the `_meta` of a tool with a page. Spec: EXT-097, EXT-098

    :param ui: the URI of the page, or all of `_meta.ui`.
    :raises ValueError: for what no host could follow.
    """
    found: Message = {"resourceUri": ui} if isinstance(ui, str) else _object(f"{name}: ui=", ui, ToolUi)
    if "resourceUri" in found:
        check_page_uri(found["resourceUri"])
    if "visibility" in found:
        who = found["visibility"]
        if not isinstance(who, (list, tuple)) or not who or not all(map(AUDIENCES.__contains__, who)):
            raise ValueError(f'{name}: visibility is a list of "model" and "app", not {who!r}')
        found["visibility"] = list(who)
    return _merged(name, found, meta)


def page_options(
    uri: str, media_type: str | None, ui: PageUi | None, meta: Message | None
) -> tuple[str, Message | None]:
    """Return the media type and the `_meta` of a page. Spec: EXT-094, EXT-096, EXT-118

    :param uri: the URI of the page, or a template for those of some.
    :raises ValueError: for a domain or permission that there is not, which hosts would leave out.
    """
    check_page_uri(re.sub(r"\{[^{}]*\}", "x", uri))
    if media_type is not None and not is_page_type(media_type):
        raise ValueError(f"{uri}: ui:// is for pages of MCP Apps; leave out mime_type=, or write another scheme")
    if ui is None:
        return MEDIA_TYPE, meta
    found = _object(f"{uri}: ui=", ui, PageUi)
    if "csp" in found:
        csp = _object(f"{uri}: csp", found["csp"], AppCsp)
        kept, wrong = read_csp(csp)
        if wrong:
            raise ValueError(f"{uri}: {wrong[0]}; write domains like https://api.example or https://*.example.com")
        found["csp"] = kept
    if "permissions" in found:
        permissions = _object(f"{uri}: permissions", found["permissions"], AppPermissions)
        found["permissions"] = {permission: {} for permission in permissions}
    if not isinstance(found.get("prefersBorder", False), bool):
        raise ValueError(f"{uri}: prefersBorder is True or False, not {found['prefersBorder']!r}")
    domain = found.get("domain", "example")
    if not isinstance(domain, str) or not _DOMAIN.match(domain):
        raise ValueError(f"{uri}: domain is an origin as a host's documentation names it, not {domain!r}")
    return MEDIA_TYPE, _merged(uri, found, meta)


def _object(what: str, value: Any, shape: Any) -> Message:
    """Return a copy of an object that has no other members than a shape."""
    known = list(shape.__annotations__)
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a dict with {', '.join(known)}, not {value!r}")
    for member in value:
        if member not in known:
            hint = "; that is for the page: server.page(uri, html, ui=...)" if member in PageUi.__annotations__ else ""
            raise ValueError(f"{what} has no {member!r}; there are {', '.join(known)}{hint}")
    return dict(value)


def _merged(name: str, ui: Message, meta: Message | None) -> Message:
    if meta is not None and ("ui" in meta or _FLAT_KEY in meta):
        raise ValueError(f"{name}: ui= and meta= both describe a page; leave it out of meta=")
    return {**(meta or {}), "ui": ui}


def check_document(uri: str, html: str) -> str:
    """Check the text of a page and return it. Spec: EXT-095

    :raises ValueError: when it is no HTML5 document, or larger than `MAX_PAGE_BYTES`.
    """
    if not _DOCUMENT.match(html):
        raise ValueError(f"{uri}: a page is a whole HTML document: begin it with <!doctype html>")
    if len(html) > MAX_PAGE_BYTES or len(html.encode("utf-8", "surrogatepass")) > MAX_PAGE_BYTES:
        raise ValueError(f"{uri}: a page has at most {MAX_PAGE_BYTES} bytes")
    return html


def is_rendered(settings: object) -> bool:
    """Say whether a host's settings of the extension name the media type of pages. Spec: EXT-092, EXT-093"""
    listed = settings.get("mimeTypes") if isinstance(settings, dict) else None
    return isinstance(listed, list) and any(map(is_page_type, listed))


# For hosts, of what a server says


def is_page_uri(uri: object) -> bool:
    """Say whether a value is the URI of one page: no template, and nothing in it that leads elsewhere."""
    return isinstance(uri, str) and _URI.match(uri) is not None and not _DOTS.search(uri, 4)


def is_page_type(media_type: object) -> bool:
    """Say whether this is the media type of pages, in any spelling."""
    return isinstance(media_type, str) and re.sub(r"[\s\"]", "", media_type).lower() == MEDIA_TYPE


def page_of(tool: Message) -> str | None:
    """Return the URI of the page of a tool, under today's key or that of earlier servers, or None."""
    meta, ui = tool.get("_meta"), _ui(tool)
    uri = ui.get("resourceUri", meta.get(_FLAT_KEY) if isinstance(meta, dict) else None)
    return uri if isinstance(uri, str) and is_page_uri(uri) else None


def audiences(tool: Message) -> tuple[str, ...]:
    """Return who may call a tool: "model", "app", both by default, or nobody where its visibility makes no sense."""
    listed = _ui(tool).get("visibility")
    if listed is None:
        return AUDIENCES
    return tuple(who for who in AUDIENCES if isinstance(listed, list) and who in listed)


def _ui(value: Any) -> Message:
    meta = value.get("_meta")
    ui = meta.get("ui") if isinstance(meta, dict) else None
    return ui if isinstance(ui, dict) else {}


def read_page_ui(*carriers: Any) -> tuple[Message, list[str]]:
    """Return the settings of a page of which only valid ones are left, and what is wrong with the others.

    :param carriers: values that may have `_meta.ui`: the first that has it counts.
    """
    ui = next(filter(None, map(_ui, carriers)), {})
    found: Message = {}
    wrong: list[str] = []
    if isinstance(ui.get("csp"), dict):
        found["csp"], wrong = read_csp(ui["csp"])
    if isinstance(ui.get("permissions"), dict):
        found["permissions"] = {name: {} for name in _FEATURES if ui["permissions"].get(name) is not None}
    if isinstance(ui.get("prefersBorder"), bool):
        found["prefersBorder"] = ui["prefersBorder"]
    if isinstance(ui.get("domain"), str) and _DOMAIN.match(ui["domain"]):
        found["domain"] = ui["domain"]
    return found, wrong


def read_csp(csp: Message) -> tuple[dict[str, list[str]], list[str]]:
    """Return the lists of domains with the valid ones, and what is wrong with the others."""
    found: dict[str, list[str]] = {}
    wrong = []
    for member in _DIRECTIVES:
        given = csp.get(member)
        if given is None:
            continue
        if not isinstance(given, (list, tuple)):
            wrong.append(f"{member} is no list")
            continue
        first = given[:_MOST_DOMAINS]
        found[member] = [origin for origin in first if is_origin(origin)]
        wrong += [f"{ascii(origin):.200} in {member} is no domain" for origin in first if not is_origin(origin)]
        if len(given) > _MOST_DOMAINS:
            wrong.append(f"{member} has more than {_MOST_DOMAINS} domains")
    return found, wrong


def is_origin(value: object) -> bool:
    """Say whether a value is an origin that may stand in a policy, where it cannot be read as anything else."""
    if not isinstance(value, str) or len(value) > 300 or not _ORIGIN.match(value):
        return False
    port = value.rstrip("/").rpartition(":")[2]
    return not port.isdigit() or 0 < int(port) < 65536


def policy(csp: Optional[dict[str, list[str]]]) -> str:
    """Return the Content-Security-Policy of a page, which opens nothing but the domains given.

    :param csp: lists of valid domains, as `read_csp` returns them; None for a page that declares none.
    Spec: EXT-107, EXT-108
    """
    sources = {
        "default-src": ["'none'"],
        "script-src": ["'self'", "'unsafe-inline'"],
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"] if csp is not None else [],
        "media-src": ["'self'", "data:"],
        "connect-src": [],
        "frame-src": [],
        "object-src": [],
        "base-uri": [],
        # A form is another way out. A page reads its fields by script, and nothing is sent.
        "form-action": [],
    }
    for member, directives in _DIRECTIVES.items():
        for directive in directives:
            sources[directive] += (csp or {}).get(member, [])
    sources["base-uri"] = sources["base-uri"] or ["'self'"]
    return "; ".join(" ".join([name, *(found or ["'none'"])]) for name, found in sources.items())


def allow(permissions: Message) -> str:
    """Return the `allow` attribute of a frame for the permissions of its page."""
    return "; ".join(feature for name, feature in _FEATURES.items() if name in permissions)
