"""A client that does what the official conformance suite asks of one, through the public API.

    conformance client --command "python tests/conformance/everything_client.py" --scenario auth/metadata-default

The suite adds the server's URL to the command, names the scenario in MCP_CONFORMANCE_SCENARIO, and gives what the
scenario needs to know, as JSON, in MCP_CONFORMANCE_CONTEXT.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The suite runs this file from wherever it is.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import requests  # noqa: E402

from minimcp import AuthorizationError, Client, OAuth  # noqa: E402

# All scenarios run at once: whoever is slow to answer the probe is busy, and no legacy server.
PATIENT: Any = {"probe_timeout": 90, "timeout": 90}
CLIENT_METADATA_URL = "https://conformance-test.local/client-metadata.json"

Context = dict[str, Any]


def list_tools(url: str, context: Context) -> None:
    """Look at what there is, declaring all that can be declared, and touch nothing."""
    with Client(url, **PATIENT, elicit=lambda question: True, sample=lambda params: "yes", roots=[]) as client:
        client.list_tools()


def call_tools(url: str, context: Context) -> None:
    """Call every tool that is listed."""
    with Client(url, **PATIENT, elicit=lambda question: True, sample=lambda params: "yes", roots=[]) as client:
        for tool in client.list_tools():
            client.call_tool(tool["name"], {"a": 2, "b": 3})


def use_everything(url: str, context: Context) -> None:
    """Call, read and get one of each kind."""
    with Client(url, **PATIENT) as client:
        for tool in client.list_tools():
            client.call_tool(tool["name"], {})
        for resource in client.list_resources():
            client.read_resource(resource["uri"])
        for prompt in client.list_prompts():
            client.get_prompt(prompt["name"], {})


def fill_forms_with_defaults(url: str, context: Context) -> None:
    """Agree to a form as it is."""
    with Client(url, **PATIENT, elicit=lambda question: True) as client:
        client.list_tools()
        client.call_tool("test_client_elicitation_defaults", {})


def answer_questions(url: str, context: Context) -> None:
    """Answer what tools ask, and call others meanwhile and afterwards."""

    def elicit(question: Any) -> bool:
        client.call_tool("test_mrtr_unrelated", {})
        return True

    with Client(url, **PATIENT, elicit=elicit) as client:
        for tool in client.list_tools():
            client.call_tool(tool["name"], {})


def mirror_arguments(url: str, context: Context) -> None:
    """Make the calls that the suite names, whose arguments go into headers too."""
    with Client(url, **PATIENT) as client:
        client.list_tools()
        for call in context["toolCalls"]:
            client.call_tool(call["name"], call["arguments"])


def call_usable_tools(url: str, context: Context) -> None:
    """Call every tool that is left after those with wrong annotations are dropped."""
    with Client(url, **PATIENT) as client:
        for tool in client.list_tools():
            client.call_tool(tool["name"], {"region": "us-west1", "value": "x"})


def echo_schema(url: str, context: Context) -> None:
    """Send a tool's schema back as it came."""
    with Client(url, **PATIENT) as client:
        tools = {tool["name"]: tool for tool in client.list_tools()}
        client.call_tool("json_schema_echo", {"schema": tools["json_schema_2020_12_tool"]["inputSchema"]})


# Authorization


def agree(url: str) -> str:
    """A user who signs in and agrees: the URL that the browser is sent back to."""
    return requests.get(url, allow_redirects=False, timeout=10).headers["Location"]


def list_and_call(url: str, auth: OAuth) -> None:
    """What every authorization scenario asks for behind the door."""
    with Client(url, **PATIENT, auth=auth) as client:
        client.list_tools()
        client.call_tool("test-tool", {})


def sign_in(url: str, context: Context) -> None:
    """Sign in as a client that registers itself, or whose metadata is at a URL."""
    list_and_call(url, OAuth("conformance", client_metadata_url=CLIENT_METADATA_URL, login=agree))


def refuse(url: str, context: Context) -> None:
    """Sign in at servers that no client should go on with."""
    try:
        sign_in(url, context)
    except AuthorizationError as error:
        print(f"refused: {error}", file=sys.stderr)
        return
    raise SystemExit("nothing was refused")


def sign_in_as_registered(url: str, context: Context) -> None:
    """Sign in with a client id and secret that were agreed on before."""
    auth = OAuth(client_id=context["client_id"], client_secret=context["client_secret"], login=agree)
    list_and_call(url, auth)


def client_credentials(url: str, context: Context) -> None:
    """Get in without a user, with a secret or a key."""
    auth = OAuth.client_credentials(
        context["client_id"], context.get("client_secret"), private_key=context.get("private_key_pem")
    )
    list_and_call(url, auth)


def enterprise(url: str, context: Context) -> None:
    """Get in by what an identity provider says of the user."""
    auth = OAuth.enterprise(
        context["client_id"],
        context["client_secret"],
        id_token=context["idp_id_token"],
        idp_token_endpoint=context["idp_token_endpoint"],
        idp_client_id=context["idp_client_id"],
    )
    list_and_call(url, auth)


def workload(url: str, context: Context) -> None:
    """Get in by what the platform says of the program."""
    list_and_call(url, OAuth.workload(context["valid_jwt"]))


def proof(url: str, context: Context) -> None:
    """Sign in, and prove the possession of a key with every request."""
    list_and_call(url, OAuth("conformance", login=agree, dpop=True))


Scenario = Callable[[str, Context], None]

SCENARIOS: dict[str, Scenario] = {
    "initialize": list_tools,
    "tools_call": call_tools,
    "request-metadata": list_tools,
    "elicitation-sep1034-client-defaults": fill_forms_with_defaults,
    "sse-retry": call_tools,
    "sep-2322-client-request-state": answer_questions,
    "http-standard-headers": use_everything,
    "http-custom-headers": mirror_arguments,
    "http-invalid-tool-headers": call_usable_tools,
    "json-schema-ref-no-deref": list_tools,
    "json-schema-2020-12-preservation": echo_schema,
    "auth/2025-03-26-oauth-endpoint-fallback": sign_in,
    "auth/2025-03-26-oauth-metadata-backcompat": sign_in,
    "auth/authorization-server-migration": sign_in,
    "auth/basic-cimd": sign_in,
    "auth/client-credentials-basic": client_credentials,
    "auth/client-credentials-jwt": client_credentials,
    "auth/dpop": proof,
    "auth/dpop-nonce": proof,
    "auth/enterprise-managed-authorization": enterprise,
    "auth/iss-normalized": refuse,
    "auth/iss-not-advertised": sign_in,
    "auth/iss-supported": sign_in,
    "auth/iss-supported-missing": refuse,
    "auth/iss-unexpected": refuse,
    "auth/iss-wrong-issuer": refuse,
    "auth/metadata-default": sign_in,
    "auth/metadata-issuer-mismatch": refuse,
    "auth/metadata-var1": sign_in,
    "auth/metadata-var2": sign_in,
    "auth/metadata-var3": sign_in,
    "auth/offline-access-not-supported": sign_in,
    "auth/offline-access-scope": sign_in,
    "auth/pre-registration": sign_in_as_registered,
    "auth/resource-mismatch": refuse,
    "auth/scope-from-scopes-supported": sign_in,
    "auth/scope-from-www-authenticate": sign_in,
    "auth/scope-omitted-when-undefined": sign_in,
    "auth/scope-retry-limit": refuse,
    "auth/scope-step-up": sign_in,
    "auth/token-endpoint-auth-basic": sign_in,
    "auth/token-endpoint-auth-none": sign_in,
    "auth/token-endpoint-auth-post": sign_in,
    "auth/wif-jwt-bearer": workload,
}


def main() -> None:
    """Play the scenario that the environment names against the URL on the command line."""
    name = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
    if len(sys.argv) != 2 or name not in SCENARIOS:
        raise SystemExit(f"usage: MCP_CONFORMANCE_SCENARIO=name {sys.argv[0]} URL; there is no scenario {name!r}")
    SCENARIOS[name](sys.argv[1], json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}")))


if __name__ == "__main__":
    main()
