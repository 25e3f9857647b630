"""Which URLs and which IP addresses an authorization flow may use."""

from __future__ import annotations

import pytest

from minimcp.engines.addresses import canonical, check_url, covers, is_local, may_connect, origin, show, with_query
from minimcp.engines.errors import AuthorizationError


@pytest.mark.parametrize(
    "url",
    [
        "https://as.example.com",
        "https://as.example.com:8443/a/b?c=d%20e",
        "HTTPS://AS.example.com/",
        "http://127.0.0.1:1/x",
        "http://localhost:3000",
        "http://[::1]:8000/x",
        "https://x/$(calc)",
    ],
)
def test_https_and_http_on_this_machine_will_do(url):
    assert check_url(url, "thing") == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "as.example.com",
        "//as.example.com",
        "http://as.example.com",
        "http://127.0.0.1.example.com",
        "http://10.0.0.1/x",
        "ftp://as.example.com",
        "javascript:alert(1)",
        "vbscript:x",
        "data:text/html,x",
        "file:///etc/passwd",
        "-flag",
        "--https://as.example.com",
        " https://as.example.com",
        "https://as.example.com/ x",
        "https://as.example.com\\@evil.example.com",
        "https://user:pass@as.example.com",
        "https://as.example.com/\r\nHost: x",
        "https://as.example.com/\n",
        "https://as.example.com/#fragment",
        "https://as.example.com/<script>",
        'https://as.example.com/"',
        "https://as.example.com:99999/",
        "https://as.example.com:0/",
        "https://as.exämple.com/",
        "https://[::::::]/",
        "https://[::1",
        "https://[1.2]/",
        "https://" + "a" * 20000,
    ],
)
def test_other_urls_are_refused(url):
    with pytest.raises(AuthorizationError):
        check_url(url, "thing")


PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "::1",
    "fd00::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "2002:7f00:1::",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
]
NEVER = [
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "fe80::1%eth0",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "x",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_for_servers_of_that_network(address):
    assert not may_connect(address, False)
    assert may_connect(address, True)


@pytest.mark.parametrize("address", NEVER)
def test_link_local_and_odd_addresses_are_for_nobody(address):
    assert not may_connect(address, False)
    assert not may_connect(address, True)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "64:ff9b::5db8:d822"])
def test_a_public_address_is_for_everybody(address):
    assert may_connect(address, False)


def test_only_an_address_by_number_makes_a_server_local():
    assert is_local("http://localhost:3000/mcp") and is_local("https://10.0.0.7/mcp") and is_local("http://[::1]/")
    assert not is_local("https://intranet.example.com/mcp") and not is_local("https://8.8.8.8/mcp")
    assert not is_local("http://169.254.169.254/")


def test_a_server_has_one_name():
    assert canonical("HTTPS://MCP.Example.com:443/Path/?q=1#f") == "https://mcp.example.com/Path/"
    assert canonical("https://mcp.example.com/") == canonical("https://mcp.example.com") == "https://mcp.example.com"
    assert origin("http://[::1]:80/x") == "http://[::1]"


def test_dots_do_not_lead_out_of_a_resource():
    assert covers("https://a.example/x", "https://a.example/x/y")
    assert not covers("https://a.example/x", "https://a.example/x/../y")
    assert not covers("https://a.example/x", "https://a.example/x/%2e%2E/y")


def test_a_url_in_a_message_is_short_printable_and_without_its_query():
    assert show("https://a/?token=secret") == "'https://a/'"
    assert "\n" not in show("https://a/\nb") and len(show("x" * 9999)) < 210


def test_parameters_are_added_to_those_that_are_there():
    assert with_query("https://a/b?c=d", "e=f") == "https://a/b?c=d&e=f"
    assert with_query("https://a/b", "e=f") == "https://a/b?e=f"


@pytest.mark.parametrize(
    ("address", "public", "private"),
    [
        ("::127.0.0.1", False, True),
        ("::a9fe:a9fe", False, False),
        ("::ffff:0:127.0.0.1", False, True),
        ("::ffff:0:a9fe:a9fe", False, False),
        ("::ffff:0:808:808", True, True),
        ("::808:808", True, True),
        ("64:ff9b:1::7f00:1", False, False),
        ("64:ff9b:1:ffff::808:808", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("fec0::1", False, True),
        ("feff::1", False, True),
        ("3fff::1", False, True),
        ("3fff:fff::1", False, True),
        ("fd00:ec2::254", False, False),
        ("fd20:ce::254", False, False),
        ("100.100.100.200", False, False),
        ("168.63.129.16", False, False),
        ("::100.100.100.200", False, False),
        ("fd00:ec2::253", False, True),
        ("::", False, False),
        ("::1", False, True),
        ("8.8.8.8", True, True),
        ("2600::1", True, True),
    ],
)
def test_addresses_that_are_another_in_disguise(address, public, private):
    assert may_connect(address, False) is public
    assert may_connect(address, True) is private


@pytest.mark.parametrize("url", ["https://ada:pw@h/x?k=v#f", "https://pw@h/", "ftp://a:pw@h"])
def test_a_url_is_shown_without_secrets(url):
    assert "pw" not in show(url) and "k=v" not in show(url) and "ada" not in show(url)
