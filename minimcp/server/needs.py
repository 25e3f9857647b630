"""The rule of one entry: the scopes and roles that it needs, beside a function of its author."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..protocol.principal import Principal
    from .catalog import Allow, Entry
    from .context import Context
    from .engine import Engine

_USES = {
    "tools": ("tools/call", "name"),
    "resources": ("resources/read", "uri"),
    "prompts": ("prompts/get", "name"),
}


class Needs:
    """A rule over the caller: all of these scopes, one of these roles, and the author's function.

    :ivar scopes: those that the principal needs all of.
    :ivar roles: those that the principal needs one of.
    :ivar allow: the author's function, or None.
    """

    def __init__(self, scopes: Iterable[str], roles: Iterable[str], allow: Allow | None) -> None:
        self.scopes = frozenset(scopes)
        self.roles = frozenset(roles)
        self.allow = allow

    def __call__(self, ctx: Context) -> bool:
        """Say whether the caller fulfils the rule."""
        return not self.lacks_scope(ctx) and self.fulfilled_but_for_scopes(ctx)

    def lacks_scope(self, ctx: Context) -> bool:
        """Say whether a scope is missing."""
        return bool(self.scopes) and (ctx.principal is None or not self.scopes <= set(ctx.principal.scopes))

    def fulfilled_but_for_scopes(self, ctx: Context) -> bool:
        """Say whether a further scope would be enough."""
        if self.roles and (ctx.principal is None or self.roles.isdisjoint(ctx.principal.roles)):
            return False
        return self.allow is None or self.allow(ctx)


def denied(ctx: Context, entry: Entry) -> None:
    """Note that the caller may not use the entry which the request is for.

    :raises Forbidden: with `Server(on_denied="challenge")`, when a further scope would be enough; it names all that are
        needed. Spec: AUTH-091, AUTH-092
    """
    ctx._denied = True
    engine, needs = ctx._engine, entry.allow
    if engine.on_denied != "challenge" or engine.auth is None or not ctx.request or not isinstance(needs, Needs):
        return
    if needs.fulfilled_but_for_scopes(ctx) and (
        engine.policy is None or entry.open or engine.policy(ctx, entry.stands_for or entry)
    ):
        raise engine.auth.insufficient(ctx.request, sorted(needs.scopes))


def take_needs(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a registration with `scopes` and `roles` put into its `allow`.

    :raises TypeError: when they are one string, whose letters would be taken for their names.
    """
    if not options.get("scopes") and not options.get("roles"):
        return {name: value for name, value in options.items() if name not in ("scopes", "roles")}
    for name in ("scopes", "roles"):
        if isinstance(options.get(name), str):
            raise TypeError(f"{name}= is a list: write {name}=[{options[name]!r}]")
    rest = dict(options)
    scopes, roles = rest.pop("scopes", None) or (), rest.pop("roles", None) or ()
    return {**rest, "allow": Needs(scopes, roles, rest.get("allow"))}


def explain(
    engine: Engine, principal: Principal | None, name: str, kind: str, arguments: dict[str, Any] | None
) -> dict[str, Any]:
    """Say whether a principal may use an entry, and why; see `Server.explain`."""
    from . import modern
    from .context import Context

    method, member = _USES[kind]
    params: dict[str, Any] = {member: name, "arguments": arguments or {}}
    ctx = Context(engine, modern.ERA, {"method": method, "params": params}, None, principal, None)
    entry = engine.catalog.resource(ctx, name) if kind == "resources" else engine.catalog.find(ctx)
    if entry is None:
        return {"allowed": False, "reasons": [f"there is nothing named {name!r} among the {kind}"]}
    reasons = []
    allow = entry.allow
    if isinstance(allow, Needs):
        if allow.lacks_scope(ctx):
            reasons.append(f"it needs the scopes {' '.join(sorted(allow.scopes))}")
        if not allow.fulfilled_but_for_scopes(ctx):
            among = (
                f" one of the roles {', '.join(sorted(allow.roles))}" if allow.roles else " what its allow= asks for"
            )
            reasons.append(f"it needs{among}")
    elif allow is not None and not allow(ctx):
        reasons.append("its allow= says no")
    if engine.policy is not None and not entry.open:
        ruled = entry.stands_for or entry
        if kind != "resources":
            name = ruled.definition["name"]
        decide = getattr(engine.policy, "decide", None)
        if decide is not None:
            # A catalog may have put further arguments in.
            found = None if arguments is None else ctx.params["arguments"]
            decision = decide(principal, kind, name, found, *filter(None, [entry.origin]))
            allowed, text = decision.allowed, decision.reason
        else:
            allowed = engine.policy(ctx, ruled)
            text = "the policy says no"
        if not allowed:
            reasons.append(text)
    return {"allowed": not reasons, "reasons": reasons}
