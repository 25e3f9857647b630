"""URI templates, URIs in form, and paths that stay below their root."""

from __future__ import annotations

import os
from urllib.parse import unquote

import pytest

from minimcp import safe_join
from minimcp.server.uris import Template, check_uri


@pytest.mark.parametrize(
    "template, uri, found",
    [
        ("a://{x}", "a://1", {"x": "1"}),
        ("a://{x}", "a://", None),
        ("a://{x}", "a://1/2", None),
        ("a://{x}/{y}", "a://1/2", {"x": "1", "y": "2"}),
        ("a://{x}/end", "a://1/end", {"x": "1"}),
        ("a://{x}/end", "a://1/en", None),
        ("a://{x}.{ext}", "a://n.tar", {"x": "n", "ext": "tar"}),
        ("a://{+path}", "a://b/c d".replace(" ", "%20"), {"path": "b/c d"}),
        ("a://x{/rest*}", "a://x/b/c", {"rest": "b/c"}),
        ("a://x{/one}", "a://x/b", {"one": "b"}),
        ("a://x{/one}", "a://x/b/c", None),
        ("a://x{?q,page}", "a://x?q=1&page=2", {"q": "1", "page": "2"}),
        ("a://x{?q,page}", "a://x", {}),
        ("a://x{?q}", "a://x?other=1", {}),
        ("a://x?fixed=1{&q}", "a://x?fixed=1&q=2", {"q": "2"}),
        ("a://x?fixed=1{&q,r}", "a://x?fixed=1&r=3&q=2", {"q": "2", "r": "3"}),
        ("a://x?fixed=1{&q}", "a://x?fixed=1", {}),
        ("a://x?fixed=1{&q}", "a://x?fixed=12", None),
        ("a://x?fixed=1{&q}", "a://x?fixed=2&q=2", None),
        ("a://x?a={v}{&q}", "a://x?a=1&q=2", {"v": "1", "q": "2"}),
        ("a://{x}{?q}", "a://1?q=2", {"x": "1", "q": "2"}),
        ("a://{x}/y{?q}", "a://1/y?q=AC/DC", {"x": "1", "q": "AC/DC"}),
        ("a://{x}/y{?q}", "a://1/yes?q=2", None),
        ("a://my docs/{x}", "a://my%20docs/1", {"x": "1"}),
        ("a://café/{x}", "a://caf%C3%A9/1", {"x": "1"}),
        ("a://caf%C3%A9/{x}", "a://café/é", {"x": "é"}),
        ("a://a~b/{x}", "a://a%7eb/1", {"x": "1"}),
        ("{+x}", "bc://d", {"x": "bc://d"}),
        ("a://{x}", "a://%C3%A9", {"x": "é"}),
        ("a://{x}", "a://%FF", None),
        ("a://{x}", "a://a%00b", None),
        ("a://{x}", "a://a%2Fb", None),
        ("a://{x}", "a://a%5Cb", None),
        ("a://{x}", "a://..", None),
        ("a://{x}", "a://%2e%2e", None),
        ("a://{x}", "b://1", None),
        ("a://{x}", "a://" + "1" * 9000, None),
    ],
)
def test_a_template_matches_whole_uris_and_decodes_its_variables(template, uri, found):
    assert Template(template).match(uri) == found


@pytest.mark.parametrize(
    "template",
    [
        *("a://{x}{y}", "a://{x}/{x}", "a://{", "a://}", "a://{}", "a://{?q}/x", "a://{x,y}"),
        # what no URI can match
        *("{x}", "x{y}", "/{x}", "1a:{x}", "{?q}", " a://{x}", "é://{x}"),
        *("a://x{&q}", "a://x?a=1{?q}", "a://x{?q}{&r}", "a://x{?q}{y}"),
    ],
)
def test_a_template_that_could_be_read_in_two_ways_is_refused(template):
    with pytest.raises(ValueError, match="URI template"):
        Template(template)


LEADING_OUT = [
    *("..", "../x", "a/../../x", "../../etc/passwd", "/etc/passwd", "//etc/passwd", "%2Fetc/passwd", "%2e%2e/x"),
    *(".%2e/x", "%2E./x", "..%2Fx", "..%5Cx", "a%5C..%5Cx", "%5Cetc", "C:%5Cx", "c:/x", "C:", "."),
]


@pytest.mark.parametrize("value", LEADING_OUT)
@pytest.mark.parametrize("template", ["a://{+v}", "a://x{/v*}", "a://x{?v}", "a://x?y=1{&v}", "a://{v}"])
def test_no_variable_leads_out_of_a_directory(template, value):
    uri = template.replace("{+v}", value).replace("{/v*}", "/" + value).replace("{?v}", "?v=" + value)
    uri = uri.replace("{&v}", "&v=" + value).replace("{v}", value)
    assert Template(template).match(uri) is None
    if template != "a://{v}":
        assert Template(template, traversal=True).match(uri) == {"v": unquote(value)}


@pytest.mark.parametrize("value", ["a%00b", "%FF", "%C3", "%C0%AE%C0%AE/x", "%ED%A0%80"])
@pytest.mark.parametrize("template", ["a://{+v}", "a://x{/v*}", "a://x{?v}", "a://x?y=1{&v}", "a://{v}"])
def test_no_variable_holds_nul_or_broken_text(template, value):
    uri = template.replace("{+v}", value).replace("{/v*}", "/" + value).replace("{?v}", "?v=" + value)
    uri = uri.replace("{&v}", "&v=" + value).replace("{v}", value)
    assert Template(template).match(uri) is None
    assert Template(template, traversal=True).match(uri) is None


@pytest.mark.parametrize("value", ["a/b", "a..b", "...", "x/.hidden", "a:b", "AC/DC", "~/x"])
def test_a_path_below_is_left_alone(value):
    assert Template("a://x{?v}").match("a://x?v=" + value) == {"v": value}
    assert Template("a://{+v}").match("a://" + value) == {"v": value}


def test_matching_takes_one_pass_whatever_the_uri_holds():
    template = Template("a://{a}-{b}-{c}-{d}-{e}-x")
    assert template.match("a://" + "-" * 8000) is None


@pytest.mark.parametrize("uri", ["a:b", "file:///x", "urn:isbn:1", "x+y-z.1://q"])
def test_a_uri_has_a_scheme(uri):
    assert check_uri(uri) is True


@pytest.mark.parametrize(
    "uri", ["", "x", "//x", "1a:b", ":x", "a:b c", "a:b\nc", "a:b\\c", "a:\0", None, 5, "a:" + "b" * 9000]
)
def test_what_is_no_uri_is_seen(uri):
    assert check_uri(uri) is False


def test_a_path_stays_below_its_root(tmp_path):
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "file").write_text("x")
    (tmp_path / "out").write_text("x")
    os.symlink(tmp_path / "out", root / "link")
    os.symlink(root / "in", root / "inside")
    assert safe_join(root, "in/file") == str((root / "in" / "file").resolve())
    assert safe_join(root, "inside/file") == str((root / "in" / "file").resolve())
    assert safe_join(root, "not/there/yet").startswith(str(root.resolve()))
    for path in (
        "../out",
        "in/../../out",
        "/etc/passwd",
        "\\etc",
        "in\\..\\..\\out",
        "link",
        "a\0b",
        "c:/x",
        str(tmp_path / "out"),
    ):
        with pytest.raises(ValueError, match="not below its root"):
            safe_join(root, path)


def test_a_path_with_a_tail_reaches_to_the_last_tail():
    assert Template("a://{+path}/raw").match("a://b/raw/c/raw") == {"path": "b/raw/c"}
    assert Template("a://{+path}/raw").match("a://b/raw/c") is None
