"""A headless Chromium over its DevTools protocol: real clicks and keys, downloads, pictures; for tests of pages."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

_WAIT = 60.0


def chromium() -> str | None:
    """The program, where there is one."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


class Page:
    """One page. `clicks` counts what a person would have clicked, `errors` what the browser complained of."""

    def __init__(self, socket: ClientConnection, session: str, downloads: Path) -> None:
        self._socket = socket
        self._session = session
        self._ids = itertools.count(1)
        self._loads = 0
        self.downloads = downloads
        self.clicks = 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        for method in ("Page.enable", "Network.enable", "Runtime.enable", "Log.enable"):
            self.send(method)

    def send(self, method: str, **parameters: Any) -> Any:
        """The result of a command."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters, "sessionId": self._session}
        self._socket.send(json.dumps(message))
        while True:
            said = json.loads(self._socket.recv(timeout=_WAIT))
            if said.get("id") == number:
                assert "error" not in said, (method, said["error"])
                return said["result"]
            self._event(said)

    def _event(self, said: Mapping[str, Any]) -> None:
        method, parameters = said.get("method"), said.get("params", {})
        if method == "Page.loadEventFired":
            self._loads += 1
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in {"error", "warning"}:
            self.errors.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def _loaded(self, before: int) -> None:
        until = time.monotonic() + _WAIT
        while self._loads == before:
            assert time.monotonic() < until, "the page did not load"
            self._event(json.loads(self._socket.recv(timeout=_WAIT)))

    def open(self, url: str) -> None:
        """Go to an address."""
        before = self._loads
        self.send("Page.navigate", url=url)
        self._loaded(before)

    def run(self, script: str) -> Any:
        """The value of an expression."""
        said = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def place(self, what: str) -> tuple[float, float]:
        """Where a person would click on the element that the JavaScript expression `what` is."""
        box = self.run(
            f"(() => {{ const e = {what}; if (!e) return null; e.scrollIntoView({{block: 'center'}});"
            "const r = e.getClientRects()[0]; return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        assert box is not None, f"no {what} on {self.run('location.href')}: {self.text[:2000]}"
        return box[0], box[1]

    def click(self, what: str, *, loads: bool = True) -> None:
        """Click with the mouse; `loads`: another page comes."""
        x, y = self.place(what)
        before = self._loads
        self.clicks += 1
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        if loads:
            self._loaded(before)

    def link(self, text: str, **options: Any) -> None:
        """Click the first link or button whose text contains `text`."""
        quoted = json.dumps(text)
        self.click(
            "[...document.querySelectorAll('a,button')]"
            f".find(e => e.textContent.replace(/\\s+/g, ' ').includes({quoted}))",
            **options,
        )

    def key(self, name: str, code: int = 0, *, loads: bool = False) -> None:
        """Press a key."""
        before = self._loads
        text: dict[str, Any] = {"text": "\r"} if name == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=name, code=name, windowsVirtualKeyCode=code, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=name, code=name, windowsVirtualKeyCode=code)
        if loads:
            self._loaded(before)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    @property
    def text(self) -> str:
        """What a person reads."""
        return str(self.run("document.body.innerText"))

    def downloaded(self, name: str) -> Path:
        """A file that the browser has saved whole."""
        path, until = self.downloads / name, time.monotonic() + _WAIT
        while not path.exists():
            assert time.monotonic() < until, sorted(self.downloads.iterdir())
            self.run("0")
            time.sleep(0.02)
        return path

    def look(self, *, width: int = 1280, height: int = 800, dark: bool = False, scale: float = 1.0) -> None:
        """How wide the window is, and which colours are preferred."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.send("Emulation.setEmulatedMedia", media="", features=features)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip: dict[str, Any] = (
            {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}} if whole else {}
        )
        said = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)
        path.write_bytes(base64.b64decode(said["data"]))


@contextlib.contextmanager
def browsing(folder: Path, *, script: bool = True, arguments: Sequence[str] = ()) -> Iterator[Page]:
    """A page of a fresh browser with a profile in `folder`; `script` false: pages run no JavaScript."""
    program, downloads = chromium(), folder / "downloads"
    assert program is not None
    downloads.mkdir(parents=True)
    log = folder / "chromium.log"
    command = [
        *(program, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}"),
        *(
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
        ),
        *("--disable-background-networking", "--disable-component-update", "--no-proxy-server"),
        # a sandbox needs a user that is not root
        *(("--no-sandbox",) if os.geteuid() == 0 else ()),
        *(*arguments, "about:blank"),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _WAIT
        while (found := re.search(r"DevTools listening on (ws://\S+)", log.read_text(errors="replace"))) is None:
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < until, log.read_text(errors="replace")
            time.sleep(0.02)
        with connect(found[1], max_size=None, proxy=None) as socket:
            yield _page(socket, downloads, script=script)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _page(socket: ClientConnection, downloads: Path, *, script: bool) -> Page:
    def send(method: str, **parameters: Any) -> Any:
        socket.send(json.dumps({"id": 0, "method": method, "params": parameters}))
        while (said := json.loads(socket.recv(timeout=_WAIT))).get("id") != 0:
            pass
        return said["result"]

    target = send("Target.createTarget", url="about:blank")["targetId"]
    session = send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
    page = Page(socket, session, downloads)
    page.look()
    if not script:
        page.send("Emulation.setScriptExecutionDisabled", value=True)
    return page
