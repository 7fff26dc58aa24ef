"""Chromium without a window, spoken to over its pipe: what a page asks for, says and shows."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass
class Visit:
    """What happened while a page was open."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)


def visit(
    page: Path,
    profile: Path,
    expressions: dict[str, str],
    width: int = 1100,
    dark: bool = False,
    *,
    reloaded: dict[str, str] | None = None,
    downloads: Path | None = None,
) -> Visit:
    """Open ``page`` and evaluate each of ``expressions`` (name: JavaScript) once it is loaded.

    Those of ``reloaded`` are evaluated when the page was loaded again; what the page lets the user save goes
    to ``downloads``.
    """
    with _Browser(profile) as browser:
        if downloads is not None:
            browser.call(
                "Browser.setDownloadBehavior",
                behavior="allow",
                downloadPath=str(downloads),
                eventsEnabled=True,
            )
        return _visit(browser, page, expressions, width, dark, reloaded or {}, downloads)


def _visit(
    browser: _Browser,
    page: Path,
    expressions: dict[str, str],
    width: int,
    dark: bool,
    reloaded: dict[str, str],
    downloads: Path | None,
) -> Visit:
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Network", "Runtime", "Log"):
        browser.call(f"{domain}.enable", session)
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.call("Emulation.setDeviceMetricsOverride", session, **screen)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.call("Emulation.setEmulatedMedia", session, features=scheme)
    browser.call("Page.navigate", session, url=page.as_uri())
    browser.wait("Page.loadEventFired")
    found = Visit()
    for number, asked in enumerate((expressions, reloaded)):
        if number and asked:
            browser.call("Page.reload", session)
            browser.wait("Page.loadEventFired", times=2)
        for name, expression in asked.items():
            answer = browser.call("Runtime.evaluate", session, expression=expression, awaitPromise=True)
            found.values[name] = answer["result"].get("value", answer)
    while downloads is not None and not any(
        event.get("params", {}).get("state") == "completed" for event in browser.events
    ):
        browser.events.append(browser._next())
    for event in browser.events:
        content = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            found.requests.append(content["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            found.errors.append(str(content))
        elif event["method"] == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
            found.errors.append(content["entry"]["text"])
        elif event["method"] == "Runtime.consoleAPICalled":
            found.errors.append(str(content))
    return found


class _Browser:
    """One Chromium and the two pipes it reads from and writes to (its descriptors 3 and 4)."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        reads, self._to = _pipe()
        self._from, writes = _pipe()
        self.events: list[dict] = []
        self._buffer, self._number = b"", 0
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe",
                   "--disable-background-networking", f"--user-data-dir={profile}"]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{reads} 4>&{writes}', "bash", CHROMIUM, *options],
            pass_fds=(reads, writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)

    def __enter__(self) -> _Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)
        os.close(self._from)
        self._process.terminate()
        self._process.wait(30)

    def call(self, method: str, session: str | None = None, **parameters: object) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def wait(self, method: str, times: int = 1) -> None:
        while sum(event["method"] == method for event in self.events) < times:
            self.events.append(self._next())

    def _next(self) -> dict:
        while b"\0" not in self._buffer:
            part = os.read(self._from, 1 << 16)
            assert part, "Chromium ended"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are not 3 or 4, which the browser's own must become."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
