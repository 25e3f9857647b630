"""Finding the authorization server: challenges, both kinds of metadata, their order, what is refused."""

from __future__ import annotations

import pytest

from minimcp.engines.errors import AuthorizationError
from minimcp.engines.oauth.discovery import find_server, find_target, legacy_server, read_challenge, union

PRM = "https://mcp.example.com/.well-known/oauth-protected-resource"
DOCUMENT = {"resource": "https://mcp.example.com/a/mcp", "authorization_servers": ["https://as.example.com"]}
SERVER = {"token_endpoint": "https://as.example.com/token"}


class Web:
    """Pages by URL; remembers what was asked for."""

    def __init__(self, **pages):
        self.pages = {key.replace(" ", ""): value for key, value in pages.items()}
        self.seen = []

    def get(self, url, what, headers=None):
        self.seen.append((url, headers) if headers else url)
        return self.pages.get(url)


@pytest.mark.parametrize(
    ("header", "schemes", "error", "scopes", "url"),
    [
        (None, (), "", None, ""),
        ("Bearer", ("bearer",), "", None, ""),
        ('Bearer scope="a b"', ("bearer",), "", ("a", "b"), ""),
        ('bearer error=invalid_token ,  scope = "a"', ("bearer",), "invalid_token", ("a",), ""),
        (
            'Basic realm="x, Bearer scope=y", Bearer resource_metadata="https://a/b"',
            ("basic", "bearer"),
            "",
            None,
            "https://a/b",
        ),
        ('Negotiate abc==, Bearer error="insufficient_scope"', ("negotiate", "bearer"), "insufficient_scope", None, ""),
        (
            'DPoP algs="ES256", error="use_dpop_nonce", Bearer scope="a"',
            ("dpop", "bearer"),
            "use_dpop_nonce",
            ("a",),
            "",
        ),
        (r'Bearer error_description="say \"no\", then", scope="c"', ("bearer",), "", ("c",), ""),
        ('Bearer scope="a", scope="b"', ("bearer",), "", ("a",), ""),
        ('Bearer scope="a\x07b c"', ("bearer",), "", ("c",), ""),
        ('Basic scope="a"', ("basic",), "", None, ""),
        ('Bearer scope="never ends', ("bearer",), "", None, ""),
        (',,, "x" =', (), "", None, ""),
    ],
)
def test_a_challenge_is_taken_apart(header, schemes, error, scopes, url):
    found = read_challenge(header)
    assert found.scopes == scopes and found.error == error and found.metadata_url == url
    if header and "never" not in header and '"x"' not in header:
        assert found.schemes == schemes


def test_the_metadata_that_a_challenge_names_comes_first_then_the_path_then_the_root():
    web = Web()
    challenge = read_challenge('Bearer resource_metadata="https://mcp.example.com/there"')
    target = find_target(web, "https://mcp.example.com/a/mcp", challenge)
    assert web.seen == ["https://mcp.example.com/there", f"{PRM}/a/mcp", PRM]
    assert target.issuers == [] and target.resource == "https://mcp.example.com/a/mcp"
    web = Web(**{f"{PRM}/a/mcp": {**DOCUMENT, "scopes_supported": ["a", "b"]}})
    target = find_target(web, "https://mcp.example.com/a/mcp?x=1", read_challenge("Bearer"))
    assert web.seen == [f"{PRM}/a/mcp"]
    assert target == ("https://mcp.example.com/a/mcp", ["https://as.example.com"], ("a", "b"))


def test_a_server_at_the_root_has_one_place():
    web = Web()
    find_target(web, "https://mcp.example.com/", read_challenge(None))
    assert web.seen == [PRM]


@pytest.mark.parametrize("resource", ["https://mcp.example.com", "https://MCP.example.com:443/a", DOCUMENT["resource"]])
def test_a_resource_may_be_the_server_or_a_whole_it_is_part_of_and_is_taken_as_written(resource):
    web = Web(**{f"{PRM}/a/mcp": {**DOCUMENT, "resource": resource}})
    assert find_target(web, "https://mcp.example.com/a/mcp", read_challenge(None)).resource == resource


@pytest.mark.parametrize(
    "resource",
    [
        "https://evil.example.com/a/mcp",
        "http://mcp.example.com/a/mcp",
        "https://mcp.example.com:8443/a/mcp",
        "https://mcp.example.com/a/mcp/deeper",
        "https://mcp.example.com/a/mc",
        "https://user@mcp.example.com/a/mcp",
        "https://mcp.example.com/a/mcp?x",
        "https://mcp.example.com/a/mcp#x",
        "https://[::1",
        "/a/mcp",
        7,
        None,
    ],
)
def test_metadata_about_another_resource_is_discarded(resource):
    web = Web(**{f"{PRM}/a/mcp": {**DOCUMENT, "resource": resource}})
    with pytest.raises(AuthorizationError, match="about another resource"):
        find_target(web, "https://mcp.example.com/a/mcp", read_challenge(None))


@pytest.mark.parametrize(
    "issuers", ["https://as.example.com", [7], ["http://as.example.com"], ["javascript:x"], {"a": 1}, 7]
)
def test_metadata_has_to_name_an_authorization_server(issuers):
    web = Web(**{f"{PRM}/a/mcp": {**DOCUMENT, "authorization_servers": issuers}})
    with pytest.raises(AuthorizationError):
        find_target(web, "https://mcp.example.com/a/mcp", read_challenge(None))


def test_server_metadata_is_looked_for_in_the_order_of_the_specification():
    web = Web()
    with pytest.raises(AuthorizationError, match="No metadata"):
        find_server(web, "https://as.example.com/tenant/1")
    assert web.seen == [
        "https://as.example.com/.well-known/oauth-authorization-server/tenant/1",
        "https://as.example.com/.well-known/openid-configuration/tenant/1",
        "https://as.example.com/tenant/1/.well-known/openid-configuration",
    ]
    web = Web()
    with pytest.raises(AuthorizationError, match="No metadata"):
        find_server(web, "https://as.example.com")
    assert web.seen == [
        "https://as.example.com/.well-known/oauth-authorization-server",
        "https://as.example.com/.well-known/openid-configuration",
    ]


@pytest.mark.parametrize("place", ["oauth-authorization-server", "openid-configuration"])
def test_both_kinds_of_server_metadata_will_do(place):
    document = {**SERVER, "issuer": "https://as.example.com", "xs_supported": ["a", 7], "y_supported": True, "more": 1}
    document.update({"zs_supported": True, "z_supported": ["a"], "as_supported": 7, "a_supported": 7})
    web = Web(**{f"https://as.example.com/.well-known/{place}": document})
    found = find_server(web, "https://as.example.com")
    assert found == {**SERVER, "issuer": "https://as.example.com", "xs_supported": ["a"], "y_supported": True}


@pytest.mark.parametrize(
    "issuer", ["https://as.example.com//", "https://AS.example.com", "https://evil.example.com", None, 7]
)
def test_server_metadata_of_another_issuer_is_not_used(issuer):
    place = "https://as.example.com/.well-known/oauth-authorization-server"
    with pytest.raises(AuthorizationError):
        find_server(Web(**{place: {**SERVER, "issuer": issuer}}), "https://as.example.com")
    with pytest.raises(AuthorizationError):
        legacy_server(Web(**{place: {**SERVER, "issuer": issuer}}), "https://as.example.com/mcp")


def test_a_server_without_a_token_endpoint_and_an_issuer_with_a_query_are_of_no_use():
    place = "https://as.example.com/.well-known/oauth-authorization-server"
    with pytest.raises(AuthorizationError, match="no token endpoint"):
        find_server(Web(**{place: {"issuer": "https://as.example.com"}}), "https://as.example.com")
    with pytest.raises(AuthorizationError, match="query"):
        find_server(Web(), "https://as.example.com?x=1")


def test_a_server_of_2025_03_26_is_its_own_authorization_server():
    place = "https://mcp.example.com/.well-known/oauth-authorization-server"
    web = Web()
    found = legacy_server(web, "https://mcp.example.com/a/mcp")
    assert web.seen == [(place, {"MCP-Protocol-Version": "2025-03-26"})]
    assert found["authorization_endpoint"] == "https://mcp.example.com/authorize"
    assert found["token_endpoint"] == "https://mcp.example.com/token"
    assert found["registration_endpoint"] == "https://mcp.example.com/register"
    document = {"issuer": "https://mcp.example.com", "token_endpoint": "https://mcp.example.com/oauth/token"}
    assert legacy_server(Web(**{place: document}), "https://mcp.example.com/a/mcp") == document


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "registration_endpoint"])
@pytest.mark.parametrize("url", ["http://as.example.com/x", "javascript:alert(1)", "file:///etc/passwd", 7, ""])
def test_an_endpoint_that_may_not_be_used_ends_it_before_any_request(name, url):
    document = {**SERVER, "issuer": "https://as.example.com", name: url}
    web = Web(**{"https://as.example.com/.well-known/oauth-authorization-server": document})
    with pytest.raises(AuthorizationError):
        find_server(web, "https://as.example.com")


def test_scopes_are_united_in_order_and_once():
    assert union("b a", ("a", "c"), None, ["d", 7], "", 'x"y') == "b a c d"


def test_a_server_that_names_no_authorization_server_is_its_own():
    for document in ({"resource": DOCUMENT["resource"]}, {**DOCUMENT, "authorization_servers": None}):
        web = Web(**{f"{PRM}/a/mcp": document})
        assert find_target(web, "https://mcp.example.com/a/mcp", read_challenge(None)).issuers == []


@pytest.mark.parametrize(
    ("header", "url"),
    [
        ("Bearer resource_metadata=https://a/b?c=d", "https://a/b?c=d"),
        ("Bearer resource_metadata=https://a/b, scope=x", "https://a/b"),
        ("Bearer realm=x, resource_metadata = /well-known/x", "/well-known/x"),
        ("Bearer resource_metadata=", ""),
        ('Bearer resource_metadata=""', ""),
    ],
)
def test_a_hint_without_quotes_is_read(header, url):
    assert read_challenge(header).metadata_url == url


def test_a_relative_hint_is_relative_to_the_server():
    web = Web(**{"https://mcp.example.com/prm": DOCUMENT})
    challenge = read_challenge('Bearer resource_metadata="/prm"')
    assert find_target(web, "https://mcp.example.com/a/mcp", challenge).issuers == ["https://as.example.com"]


@pytest.mark.parametrize(
    ("named", "document", "same"),
    [
        ("https://as.example.com", "https://as.example.com/", True),
        ("https://as.example.com/", "https://as.example.com", True),
        ("https://as.example.com/a", "https://as.example.com/a/", False),
        ("https://as.example.com/a/", "https://as.example.com/a", False),
        ("https://as.example.com", "https://as.example.com//", False),
        ("https://as.example.com", "https://as.example.com/?", False),
        ("https://as.example.com", "https://as.example.com/#", False),
        ("https://as.example.com", "https://as.example.com:443/", False),
    ],
)
def test_issuers_are_equal_where_the_path_is_empty(named, document, same):
    web = Web()
    web.get = lambda url, what, headers=None: {**SERVER, "issuer": document}
    if same:
        assert find_server(web, named)["issuer"] == document
    else:
        with pytest.raises(AuthorizationError, match="another issuer"):
            find_server(web, named)


@pytest.mark.parametrize(
    ("issuer", "endpoint", "allowed"),
    [
        ("https://as.example.com", "https://login.example.com/authorize?x=1", True),
        ("https://as.example.com", "http://127.0.0.1:8080/factory-reset?confirm=1", False),
        ("https://as.example.com", "http://localhost:8080/", False),
        ("https://as.example.com", "http://[::1]:8080/", False),
        ("https://as.example.com", "https://127.0.0.1:8080/", False),
        ("https://as.example.com", "https://192.168.1.1/reboot", False),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/authorize", True),
        ("http://localhost:9000", "http://127.0.0.1:9001/authorize", True),
    ],
)
def test_what_a_browser_is_sent_to_is_as_public_as_the_issuer(issuer, endpoint, allowed):
    web = Web()
    web.get = lambda url, what, headers=None: {**SERVER, "issuer": issuer, "authorization_endpoint": endpoint}
    if allowed:
        assert find_server(web, issuer)["authorization_endpoint"] == endpoint
    else:
        with pytest.raises(AuthorizationError, match="authorization endpoint must be https"):
            find_server(web, issuer)
