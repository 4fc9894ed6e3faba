"""Headless Chromium over its own debugging protocol: enough to use one page and look at it."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx2
from websockets.sync.client import ClientConnection, connect


class Page:
    """One tab. `problems`: errors and refused loads that the browser reported."""

    def __init__(
        self, chromium: str, folder: Path, *, width: int = 1120, height: int = 760
    ) -> None:
        self._command = [
            chromium,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--remote-debugging-port=0", "--remote-debugging-address=127.0.0.1"),
            *(f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}"),
            *("--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"),
            "about:blank",
        ]
        self._profile = folder / "profile"
        self._ids = itertools.count(1)
        self.problems: list[str] = []

    def __enter__(self) -> Page:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._socket: ClientConnection = connect(self._address(), max_size=None)
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)

    def open(self, url: str) -> None:
        """Go to `url`."""
        self._call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Until the JavaScript `condition` holds."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(condition):
            assert time.monotonic() < deadline, condition
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """What a person reads there."""
        found = self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")
        return str(found).strip()

    def choose(self, selector: str, file: Path) -> None:
        """Choose `file` in a file field, as a person would."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def screenshot(self, path: Path) -> None:
        """What is to be seen, as PNG."""
        data = self._call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(message["params"]["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            # An answer of 422 is part of the test.
            if entry["level"] == "error" and "422" not in entry["text"]:
                self.problems.append(json.dumps(entry))

    def _address(self) -> str:
        port_file = self._profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert time.monotonic() < deadline, "Chromium did not start"
            time.sleep(0.05)
        port = port_file.read_text().split("\n")[0]
        tabs = httpx2.get(f"http://127.0.0.1:{port}/json").json()
        return str(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))
