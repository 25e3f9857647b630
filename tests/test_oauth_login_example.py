"""The example that signs in with a browser, run as the program it is; a script stands for the browser."""

from __future__ import annotations

import subprocess
import sys

import pytest
import requests

from minimcp import Server
from tests.authority import Authority, Resource
from tests.transports import ROOT

BROWSER = """
import sys, urllib.request
with open(sys.argv[2], "a") as visits:
    print(sys.argv[1], file=visits)
sys.exit(urllib.request.urlopen(sys.argv[1], timeout=60).status != 200)
"""


@pytest.fixture
def authority():
    with Authority() as site:
        yield site


@pytest.fixture
def resource(authority):
    server = Server("guarded")

    @server.tool
    def secret() -> str:
        """Tell a secret."""
        return "42"

    with Resource(authority) as site:

        def page(seen):
            answer = site.answer(seen)
            return (200, server.handle(seen.form), {}) if answer[0] == 200 else answer

        site.pages["/mcp"] = page
        yield site


@pytest.fixture
def run(resource, tmp_path):
    (tmp_path / "browser.py").write_text(BROWSER)
    visits = tmp_path / "visits"
    visits.touch()

    def run(*more, answer=None):
        command = [sys.executable, str(ROOT / "examples" / "oauth_login.py"), resource.endpoint]
        process = subprocess.Popen(
            [*command, "--tokens", str(tmp_path / "tokens.json"), *more],
            env={
                "PYTHONPATH": str(ROOT),
                "PATH": "",
                "HOME": str(tmp_path),
                "BROWSER": f"{sys.executable} {tmp_path / 'browser.py'} %s {visits}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            if answer is not None:
                line = next(line for line in process.stderr if "http://" in line)
                out, error = process.communicate(answer(line.strip()) + "\n", timeout=120)
            else:
                out, error = process.communicate(timeout=120)
        return process.returncode, out, error, len(visits.read_text().splitlines())

    return run


def test_the_browser_opens_once_and_the_tools_are_listed(run, tmp_path):
    assert run() == (0, "secret: Tell a secret.\n", "", 1)
    assert run() == (0, "secret: Tell a secret.\n", "", 1)
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600


def test_without_a_browser_the_address_is_pasted(run):
    def visit(url):
        return requests.get(url, allow_redirects=False, timeout=60).headers["Location"]

    code, out, _, visits = run("--no-browser", answer=visit)
    assert (code, visits) == (0, 0) and out.endswith("secret: Tell a secret.\n")


def test_a_refusal_is_said_in_one_line(run, authority):
    authority.metadata["code_challenge_methods_supported"] = []
    code, out, error, visits = run()
    assert (code, out, visits) == (1, "", 0)
    assert error.startswith("Not signed in: ") and error.count("\n") == 1
