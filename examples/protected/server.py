"""A server that people sign in to and that programs call with a key or a certificate, behind nginx: see `nginx.conf`.

    python -m minimcp token backup --role operator --file keys.json

    PROTECTED_URL=https://tools.example/team/mcp PROTECTED_ISSUER=https://login.example/realms/team \\
        PROTECTED_KEYS=keys.json python -m minimcp run examples/protected/server.py --http 8000

Tokens are issued for PROTECTED_URL, the address that callers use; the server itself listens on the loopback interface.
"""

from __future__ import annotations

import os

from minimcp import Context, Server
from minimcp.auth import Jwt, Keys, ProxyCertificate

ISSUER = os.environ["PROTECTED_ISSUER"]

server = Server(
    "protected",
    "1.0",
    auth=[
        Keys(os.environ.get("PROTECTED_KEYS", "keys.json")),
        ProxyCertificate(roles=lambda subject: ["operator"] if subject.startswith("CN=operator,") else []),
        # The issuer may be on a private network: you have written its address yourself.
        Jwt(ISSUER, roles="realm_access.roles", private_addresses=True),
    ],
    public_url=os.environ["PROTECTED_URL"],
    trusted_proxy="127.0.0.1",
    on_denied="challenge",
)


@server.tool(annotations={"readOnlyHint": True})
def who_am_i(ctx: Context) -> dict:
    """Say whom the server takes the caller for."""
    caller = ctx.principal
    return {"id": caller.id, "issuer": caller.issuer, "roles": list(caller.roles), "via": caller.via}


@server.tool(scopes=["notes:write"])
def write_note(text: str) -> str:
    """Write a note; a token needs the scope for it."""
    return f"Noted: {text}"


@server.tool(roles=["operator"])
def restart() -> str:
    """Restart something; for operators alone, and nobody else sees it."""
    return "Restarted."
