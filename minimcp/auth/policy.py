"""Rules in one place: who may see and use what, denied by default, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Optional, Protocol

from ..protocol.principal import Principal
from ..protocol.spelling import normal

Rule = Mapping[str, Any]
_MEMBERS = frozenset({"allow", "deny", "roles", "scopes", "principals", "arguments", "servers"})
_KINDS = ("tools", "resources", "prompts")


class RuledEntry(Protocol):
    """The part of an entry that rules look at."""

    definition: dict[str, Any]
    origin: str


class RuledRequest(Protocol):
    """The part of a Context that rules look at."""

    principal: Optional[Principal]
    params: dict[str, Any]
    method: str


class Decision:
    """The answer of the rules; it is true when they allow.

    :ivar allowed: whether they allow.
    :ivar reason: why, in one sentence.
    :ivar rule: the rule that decided, None when there was none.
    """

    def __init__(self, allowed: bool, reason: str, rule: Rule | None = None) -> None:
        self.allowed = allowed
        self.reason = reason
        self.rule = rule

    def __bool__(self) -> bool:
        return self.allowed

    def __repr__(self) -> str:
        return f"Decision({self.allowed}, {self.reason!r})"


class Rules:
    """A table of rules, to be used as `Server(policy=Rules(...))`. What no rule allows is denied.

    Each rule is a dict with "allow" or "deny": a pattern such as "tools:report_*", or a list of them, where `*` stands
    for anything, the part before the colon is "tools", "resources" or "prompts", and that after it is the name or the
    URI, however that is spelled. It applies to everybody, or to those who have one of the "roles", all of the "scopes",
    or are one of the "principals" (ids, or "issuer id"), only to what comes from one of the "servers" (patterns of the
    names of mounted servers or of those behind a gateway, "" for the server itself), and only to calls whose
    "arguments", `{name: pattern or patterns}`, match. A rule that denies goes before all that allow.

    :raises ValueError: for a rule with a member that is not known, or without a pattern.
    :raises TypeError: for a rule that is no dict, such as a list of rules.
    """

    def __init__(self, *rules: Rule) -> None:
        made = [_Rule(rule) for rule in rules]
        self._about = remembered(lambda *name: [rule for rule in made if rule.covers(*name)])

    def __call__(self, ctx: RuledRequest, entry: RuledEntry) -> bool:
        """Say whether the caller may see the entry, or, when the request is for it, use it with its arguments."""
        arguments = ctx.params.get("arguments", {}) if ctx.method in ("tools/call", "prompts/get") else None
        definition = entry.definition
        place = definition.get("uri") or definition.get("uriTemplate")
        kind = "tools" if "inputSchema" in definition else "resources" if place else "prompts"
        if ctx.method == "resources/read" and kind == "resources":
            # Rules name what is read, and not only the template that matches it.
            uri = ctx.params.get("uri")
            return not isinstance(uri, str) or self._find(ctx.principal, kind, uri, None, entry.origin)[0]
        return self._find(ctx.principal, kind, place or definition["name"], arguments, entry.origin)[0]

    def decide(
        self,
        principal: Principal | None,
        kind: str,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        origin: str = "",
    ) -> Decision:
        """Decide about a name.

        :param kind: "tools", "resources" or "prompts".
        :param arguments: those of a call; None asks whether it may be seen, that is, used with some arguments.
        :param origin: the name of the server that it comes from, "" for this one.
        """
        allowed, rule = self._find(principal, kind, name, arguments, origin)
        if rule is None:
            return Decision(False, f"no rule allows {kind}:{name} to {_named(principal)}")
        said = "allowed" if allowed else "denied"
        return Decision(allowed, f"{kind}:{name} is {said} by {rule.text}", rule.source)

    def _find(
        self, principal: Principal | None, kind: str, name: str, arguments: Mapping[str, Any] | None, origin: str
    ) -> tuple[bool, _Rule | None]:
        """Return whether a name is allowed, and the rule that decides."""
        allowing = None
        for rule in self._about(kind, name, origin):
            if not rule.applies(principal):
                continue
            if rule.denies:
                # Seen is what some arguments are allowed for.
                if arguments is None and rule.arguments:
                    continue
                if rule.fits(arguments or {}):
                    return False, rule
            elif allowing is None and (arguments is None or rule.fits(arguments)):
                allowing = rule
        return allowing is not None, allowing

    def audience(self, kind: str, name: str, origin: str = "") -> list[str]:
        """Say who may see a name, in words for people: such as "staff", "ada", "scope mail", "not guest".

        :param kind: "tools", "resources" or "prompts".
        """
        covering = self._about(kind, name, origin)
        # A rule that denies some arguments hides nothing.
        denying = [rule.who for rule in covering if rule.denies and not rule.arguments]
        allowing = [rule.who for rule in covering if not rule.denies]
        if not allowing or "everybody" in denying:
            return ["nobody"]
        if "everybody" in allowing:
            allowing = ["everybody"]
        return list(dict.fromkeys([*allowing, *(f"not {each}" for each in denying)]))


class _Rule:
    def __init__(self, rule: Rule) -> None:
        if not isinstance(rule, Mapping):
            raise TypeError(
                f"A rule is a dict, and several are given one by one, Rules({{...}}, {{...}}), not {rule!r}"
            )
        unknown = set(rule) - _MEMBERS
        if unknown:
            raise ValueError(f"The rule {dict(rule)} has {sorted(unknown)}; a rule may have {sorted(_MEMBERS)}")
        if ("allow" in rule) == ("deny" in rule):
            raise ValueError(f"The rule {dict(rule)} needs either 'allow' or 'deny'")
        self.source = rule
        self.text = str(dict(rule))
        self.denies = "deny" in rule
        patterns = strings_of(rule.get("deny", rule.get("allow")))
        for pattern in patterns:
            kind, colon, name = pattern.partition(":")
            if not colon or not name or not any(Patterns([kind]).matches(known) for known in _KINDS):
                raise ValueError(f"{pattern!r} is not a pattern such as 'tools:report_*' or '*:*'")
        if not patterns:
            raise ValueError(f"The rule {dict(rule)} has no pattern")
        self._target = Patterns([*patterns, *map(normal, patterns)])
        self._servers = Patterns(strings_of(rule["servers"])) if "servers" in rule else None
        self._roles = set(strings_of(rule.get("roles")))
        self._scopes = set(strings_of(rule.get("scopes")))
        self._principals = set(strings_of(rule.get("principals")))
        self._everybody = not any(name in rule for name in ("roles", "scopes", "principals"))
        self.arguments = {name: Patterns(strings_of(value)) for name, value in rule.get("arguments", {}).items()}

    @property
    def who(self) -> str:
        """The callers that it is about."""
        if self._everybody:
            return "everybody"
        scopes = [f"scope {each}" for each in sorted(self._scopes)]
        parts = [" or ".join(sorted(self._roles)), *scopes, " or ".join(sorted(self._principals))]
        return " and ".join(filter(None, parts)) or "nobody"

    def covers(self, kind: str, name: str, origin: str) -> bool:
        """Say whether the rule is about a name; all spellings of a URI are one."""
        target = f"{kind}:{normal(name) if kind == 'resources' else name}"
        return self._target.matches(target) and (self._servers is None or self._servers.matches(origin))

    def applies(self, principal: Principal | None) -> bool:
        """Say whether the rule is about this caller; all that it names must be true."""
        if self._everybody:
            return True
        if principal is None:
            return False
        if "roles" in self.source and self._roles.isdisjoint(principal.roles):
            return False
        if "scopes" in self.source and not self._scopes <= set(principal.scopes):
            return False
        if "principals" not in self.source:
            return True
        return not self._principals.isdisjoint((principal.id, f"{principal.issuer} {principal.id}"))

    def fits(self, arguments: Mapping[str, Any]) -> bool:
        """Say whether the arguments match; one that is no text, number or boolean matches nothing."""
        if not isinstance(arguments, Mapping):
            return not self.arguments
        for name, pattern in self.arguments.items():
            value = arguments.get(name)
            if isinstance(value, bool):
                value = str(value).lower()
            if not isinstance(value, (str, int, float)) or not pattern.matches(str(value)):
                return False
        return True


def strings_of(value: Any) -> list[str]:
    """Return the strings of a member.

    :raises ValueError: when it is neither a string nor a list of them.
    """
    found = list(value or ()) if isinstance(value, (list, tuple, set, frozenset, type(None))) else [value]
    if not all(isinstance(each, str) for each in found):
        raise ValueError(f"{value!r} is neither a string nor a list of strings")
    return found


def remembered(find: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Return a function of strings that keeps what it returned for the latest of them, unless they are long."""
    kept = lru_cache(4096)(find)
    return lambda *names: (kept if sum(map(len, names)) < 1000 else find)(*names)


class Patterns:
    """Patterns in which `*` stands for anything and nothing else is special; matching takes no more than one pass."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [pattern.split("*") for pattern in patterns]

    def matches(self, text: str) -> bool:
        """Say whether one of them stands for a text."""
        return any(_matches(parts, text) for parts in self._patterns)


def _matches(parts: list[str], text: str) -> bool:
    """Say whether a text consists of these parts in order, with anything between them."""
    first, *middle = parts
    if not middle:
        return text == first
    last = middle.pop()
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _named(principal: Principal | None) -> str:
    return "an anonymous caller" if principal is None else repr(principal)
