"""A headless Chromium, driven over WebDriver, for tests of pages; they are skipped by name where there is none."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_ARGUMENTS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    "--force-color-profile=srgb",
]


class Browser:
    """One window of Chromium.

    :ivar port: where its driver listens.
    """

    def __init__(self, port: int, profile: str) -> None:
        self.port = port
        options = {"args": [*_ARGUMENTS, f"--user-data-dir={profile}"], "binary": CHROMIUM}
        wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        wanted["alwaysMatch"]["goog:loggingPrefs"] = {"browser": "ALL"}
        self._session = ""
        self._session = "/session/" + self._send("POST", "/session", {"capabilities": wanted})["sessionId"]

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = None if method != "POST" else json.dumps(body or {})
            connection.request(method, self._session + path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            value = json.loads(response.read())["value"]
            assert response.status == 200, value
            return value
        finally:
            connection.close()

    def open(self, url: str) -> None:
        """Open a page and wait until it has loaded."""
        self._send("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what the body of a function returns."""
        return self._send("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition: str, timeout_s: float = 20) -> Any:
        """Wait until an expression is true, and return its value."""
        until = time.monotonic() + timeout_s
        while True:
            found = self.run(f"return {condition}")
            if found:
                return found
            assert time.monotonic() < until, f"{condition} did not come true; the log says {self.log()}"

    def type(self, selector: str, text: str) -> None:
        """Type into the element that a selector finds; keys are as WebDriver writes them."""
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]
        self._send("POST", f"/element/{found}/value", {"text": text})

    def click(self, selector: str) -> None:
        """Click on an element, which must be in sight."""
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]
        self._send("POST", f"/element/{found}/click")

    def enter(self, *frames: str) -> None:
        """Go on within a frame: the one that each selector finds within the last one, from the window itself on."""
        self._send("POST", "/frame", {"id": None})
        for selector in frames:
            found = self._send("POST", "/element", {"using": "css selector", "value": selector})
            self._send("POST", "/frame", {"id": found})

    def devtools(self, command: str, **params: Any) -> Any:
        """Run a command of the DevTools protocol."""
        return self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def look(self, width: int, height: int, scheme: str = "light", scale: float = 1) -> None:
        """Take the size and the colour scheme of a device."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 500,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, whole: bool = False) -> bytes:
        """Return the page as a PNG."""
        return base64.b64decode(self.devtools("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def log(self) -> list[str]:
        """Return what the console said since this was last asked."""
        return [each["message"] for each in self._send("POST", "/se/log", {"type": "browser"})]

    def close(self) -> None:
        """Close the window."""
        self._send("DELETE", "")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium; nothing of it is left afterwards."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no chromium with a chromedriver here")
    profile = tempfile.mkdtemp()
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert driver.stdout is not None
    try:
        line = next(each for each in driver.stdout if "started" in each and "on port" in each)
        found = Browser(int(line.strip().rstrip(".").rpartition(" ")[2]), profile)
        try:
            yield found
        finally:
            found.close()
    finally:
        driver.terminate()
        driver.wait(20)
        driver.stdout.close()
        shutil.rmtree(profile, ignore_errors=True)
