"""What it costs to know the caller: `python -m tests.benchmarks.auth` prints one table, all rows taken in turns.

The processor time of one request through the WSGI application, from the environ to the body, without sockets; and, for
the rows that one header can carry, calls per second over HTTP. `--seconds N` is the length of each HTTP run.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import resource
import statistics
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

from minimcp import Server
from minimcp.auth import Introspection, Jwt, Keys
from minimcp.auth.proof import thumbprint_of
from minimcp.engines.http_server.wsgi_server import make_server
from minimcp.engines.oauth.dpop import base64url
from tests.benchmarks import load, wire
from tests.tokens import AUDIENCE, Issuer, new_key, public_jwk

KEY = "key-of-the-benchmark-0123456789"
CALLS = 400
TURNS = 15


def add(a: int, b: int) -> int:
    return a + b


def server(auth: Any, tools: int = 0) -> Server:
    made = Server("bench", auth=auth, public_url=None if auth is None else AUDIENCE)
    made.tool(add)
    for number in range(tools):
        made.tool(add, f"tool_{number}", **({"roles": ["staff"]} if auth is not None else {}))
    return made


def environ(request: wire.Request, headers: Dict[str, str]) -> Dict[str, Any]:
    body = request.body(1)
    made = {"REQUEST_METHOD": "POST", "PATH_INFO": "/mcp", "SCRIPT_NAME": "", "HTTP_HOST": "tools.example"}
    made.update({"wsgi.url_scheme": "https", "REMOTE_ADDR": "192.0.2.1", "CONTENT_LENGTH": str(len(body))})
    for name, value in {**request.headers, **headers}.items():
        place = name.upper().replace("-", "_")
        made[place if place == "CONTENT_TYPE" else f"HTTP_{place}"] = value
    made["body"] = body
    return made


def run(app: Any, environs: Iterator[Dict[str, Any]], calls: int) -> float:
    """Return the microseconds of processor time that one request takes."""
    made = [dict(each) for each in itertools.islice(environs, calls)]
    for each in made:
        each["wsgi.input"] = io.BytesIO(each.pop("body"))
    statuses: List[str] = []
    began = time.process_time()
    for each in made:
        b"".join(app(each, lambda status, headers: statuses.append(status)))
    took = (time.process_time() - began) / calls * 1e6
    if set(statuses) != {"200 OK"}:
        raise RuntimeError(f"the requests were answered with {set(statuses)}")
    return took


class Tokens:
    """Makes the credentials of each row."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.count = itertools.count()
        self.key = new_key()
        self.jwk = public_jwk(self.key)
        self.bound = issuer.token(cnf={"jkt": thumbprint_of(self.jwk)})
        self.ath = base64url(hashlib.sha256(self.bound.encode()).digest())

    def fresh(self, kid: str) -> Dict[str, str]:
        return {"Authorization": f"Bearer {self.issuer.token(kid, jti=str(next(self.count)))}"}

    def proof(self) -> Dict[str, str]:
        import jwt

        claims = {
            "jti": str(next(self.count)),
            "htm": "POST",
            "htu": AUDIENCE,
            "iat": int(time.time()),
            "ath": self.ath,
        }
        proof = jwt.encode(claims, self.key, "ES256", {"typ": "dpop+jwt", "jwk": self.jwk})
        return {"Authorization": f"DPoP {self.bound}", "DPoP": proof}


def verifying(issuer: Issuer, kid: str) -> float:
    """Return the microseconds that checking one signature takes with the library alone."""
    import jwt

    key, algorithm = issuer.keys[kid]
    token, public = issuer.token(kid), key.public_key()
    jws, best = jwt.api_jws.PyJWS(), float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(200):
            jws.decode(token, public, [algorithm])
        best = min(best, (time.process_time() - began) / 200 * 1e6)
    return best


def over_http(app: Any, request: wire.Request, seconds: float) -> float:
    made = make_server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    try:
        return load.run(made.port, request, 8, seconds).rate
    finally:
        made.stop()
        thread.join(10)
        made.close()


def main(arguments: Any = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--tokens", type=int, default=100_000, help="how many different tokens the memory row takes")
    options = parser.parse_args(arguments)
    call = wire.request("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
    listing = wire.request("tools/list", {})
    with Issuer() as issuer:
        issuer.keys["rsa"] = (new_key("RSA"), "RS256")
        tokens = Tokens(issuer)
        jwt = Jwt(issuer.url, AUDIENCE, dpop=True, private_addresses=True)
        introspection = Introspection(issuer.url, "me", "secret", AUDIENCE, private_addresses=True, keep_s=3600)
        issuer.site.pages["/introspect"] = lambda seen: (200, {"active": True, "sub": "ann", "aud": AUDIENCE}, {})
        keys = Keys({"ci": {"key": KEY, "roles": ["staff"]}})
        apps = {"open": server(None), "key": server(keys), "jwt": server(jwt), "opaque": server(introspection)}
        warm = {"Authorization": f"Bearer {issuer.token()}"}
        key, opaque = {"X-API-Key": KEY}, {"Authorization": "Bearer opaque"}

        def same(headers: Dict[str, str], request: wire.Request = call) -> Iterator[Dict[str, Any]]:
            return itertools.repeat(environ(request, headers))

        def each(make: Callable[[], Dict[str, str]]) -> Iterator[Dict[str, Any]]:
            while True:
                yield environ(call, make())

        large, ruled = server(None, 1000).wsgi, server(keys, 1000).wsgi
        rows = {
            "open": (apps["open"].wsgi, same({}), CALLS),
            "with a key": (apps["key"].wsgi, same(key), CALLS),
            "JWT seen before": (apps["jwt"].wsgi, same(warm), CALLS),
            "fresh JWT, ES256": (apps["jwt"].wsgi, each(lambda: tokens.fresh("first")), CALLS),
            "fresh JWT, RS256": (apps["jwt"].wsgi, each(lambda: tokens.fresh("rsa")), CALLS),
            "DPoP": (apps["jwt"].wsgi, each(tokens.proof), CALLS),
            "introspected before": (apps["opaque"].wsgi, same(opaque), CALLS),
            "list of 1,000, open": (large, same({}, listing), 20),
            "list of 1,000, by role": (ruled, same(key, listing), 20),
        }
        taken: Dict[str, List[float]] = {name: [] for name in rows}
        for _ in range(TURNS):
            for name, (app, environs, calls) in rows.items():
                taken[name].append(run(app, environs, calls))
        median = {name: statistics.median(values) for name, values in taken.items()}
        print(f"{'processor time of one request':36} {'us':>8} {'to open':>9}")
        for name, value in median.items():
            base = median["list of 1,000, open" if name.startswith("list") else "open"]
            print(f"{name:36} {value:8.1f} {value / base:8.2f}x")
        for kid, title in (("first", "ES256"), ("rsa", "RS256")):
            alone = verifying(issuer, kid)
            more = median[f"fresh JWT, {title}"] - median["open"] - alone
            print(f"{f'checking a {title} signature alone':36} {alone:8.1f}   (a fresh JWT costs {more:.1f} more)")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run(apps["jwt"].wsgi, each(lambda: tokens.fresh("first")), 2000)
        settled = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(options.tokens // 2000):
            run(apps["jwt"].wsgi, each(lambda: tokens.fresh("first")), 2000)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"memory over {options.tokens:,} tokens: {before} KiB, {settled} after 2,000, {after} at the end")
        print(f"\ncalls per second over HTTP, 8 connections, by {load.client_name()}")
        host = {"Host": "tools.example"}
        for name, headers in (("open", {}), ("key", {**key, **host}), ("jwt", {**warm, **host})):
            rate = over_http(apps[name].wsgi, call._replace(headers={**call.headers, **headers}), options.seconds)
            print(f"{name:36} {rate:8.0f}")


if __name__ == "__main__":
    main()
