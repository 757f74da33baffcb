"""Drive a headless Chromium by its chromedriver, in the words of the W3C's WebDriver, with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager

import pytest

PROGRAMS = {"chromium": ("chromium", "chromium-browser", "google-chrome"), "chromedriver": ("chromedriver",)}
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # how the protocol names one
START_SECONDS, DRAW_SECONDS = 120, 300


def programs():
    """Return the browser and its driver, or skip the test with the reason."""
    found = {kind: next(filter(None, map(shutil.which, names)), None) for kind, names in PROGRAMS.items()}
    if missing := [kind for kind, path in found.items() if path is None]:
        pytest.skip(f"there is no {' and no '.join(missing)}; apt-get install chromium chromium-driver")
    return found


@contextmanager
def opened(path, *, width=1200, height=1600, dark=False):
    """Yield a :class:`Page` that shows a file once its charts are drawn."""
    found = programs()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        [found["chromedriver"], f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        page = Page(f"http://127.0.0.1:{port}", found["chromium"])
        try:
            page.resize(width, height, dark=dark)
            page.go(path)
            yield page
        finally:
            page.close()
    finally:
        driver.terminate()
        driver.wait(START_SECONDS)


class Page:
    """A page in a browser."""

    def __init__(self, address, chromium):
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--allow-file-access-from-files",
        ]
        options = {"binary": chromium, "args": arguments}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.address = address
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self._call("GET", "/status")
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self.address = f"{address}/session/{session}"

    def _call(self, method, path, body=None):
        data = None if body is None and method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)["value"]

    def devtools(self, command, **parameters):
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def resize(self, width, height, *, dark=False):
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def go(self, path):
        self._call("POST", "/url", {"url": path.resolve().as_uri()})
        until = time.monotonic() + DRAW_SECONDS
        while self.run("return document.documentElement.dataset.drawn") != "yes":
            if time.monotonic() > until:
                raise TimeoutError(f"the charts are not drawn: {self.messages()}")
            time.sleep(0.1)

    def run(self, script, *arguments):
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector):
        return self._call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self._call("POST", f"/element/{self.find(selector)}/click")

    def hover(self, x, y):
        """Move the pointer to a place of the window, in its pixels."""
        moves = [{"type": "pointerMove", "duration": 0, "x": round(x) + by, "y": round(y)} for by in (-3, 0)]
        self._call("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moves}]})
        time.sleep(0.3)

    def messages(self):
        """Return what the console says."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def screenshot(self, path, *, whole=True):
        if whole:
            shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, format="png")["data"]
        else:
            shot = self._call("GET", "/screenshot")
        path.write_bytes(base64.b64decode(shot))

    def pdf(self, path):
        path.write_bytes(base64.b64decode(self._call("POST", "/print", {})))

    def close(self):
        self._call("DELETE", "")
