"""The authorization server `canaille` with a user "ann" and two clients: `PORT`.

The client "desk" is public and may send its user back to any address of tests; "resource" may ask about its tokens.
"""

from __future__ import annotations

import sys

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from joserfc import jwk
from werkzeug.serving import make_server

port = int(sys.argv[1])
config = {
    "SECRET_KEY": "only for tests",
    "SERVER_NAME": f"localhost:{port}",
    "PREFERRED_URL_SCHEME": "http",
    "TESTING": True,
    "CANAILLE": {"DATABASE": "memory", "LOGGING": None},
    "CANAILLE_OIDC": {"ACTIVE_JWKS": [jwk.RSAKey.generate_key(2048).as_dict(private=True)], "REQUIRE_NONCE": False},
}
app = create_app(config)
with app.app_context():
    keep = Backend.instance.save
    ann = models.User(
        user_name="ann", password="ann", formatted_name="Ann", family_name="Ann", emails=["ann@desk.example"]
    )
    keep(ann)
    common = {"client_uri": "http://desk.localhost", "scope": ["openid", "profile", "groups"]}
    resource = models.Client(
        client_id="resource", client_name="resource", client_secret="secret of the resource", **common
    )
    desk = models.Client(
        client_id="desk",
        client_name="desk",
        redirect_uris=["http://127.0.0.1:7000/callback"],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        token_endpoint_auth_method="none",
        **common,
    )
    keep(resource)
    keep(desk)
    desk.audience = [desk, resource]
    keep(desk)
server = make_server("localhost", port, app, threaded=True)
print("listening", flush=True)
server.serve_forever()
