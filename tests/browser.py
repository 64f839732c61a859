"""A real browser for tests: chromium, headless, spoken to by the DevTools protocol over two pipes. No port, no driver.

Messages are JSON, each ended by a zero byte; the browser reads descriptor 3 and writes descriptor 4 (--remote-debugging-pipe).
chromedevtools.github.io/devtools-protocol
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "no chromium is installed (Debian: apt install chromium)"

PATIENCE_S = 60.0  # For one answer, on a machine whose processors are busy.
FAREWELL_S = 5.0
READ_BYTES = 1 << 20
FLAGS = (
    "--headless", "--remote-debugging-pipe", "--hide-scrollbars", "--no-sandbox",  # The page is ours; root has no sandbox.
    "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-default-apps", "--no-first-run", "--no-default-browser-check", "--mute-audio",
    "--disable-breakpad", "--disable-features=Translate,OptimizationHints,MediaRouter", "--password-store=basic",
)  # fmt: skip


class BrowserError(Exception):
    """The browser refused, ended or did not answer."""


class Browser:
    """A running browser: commands, their answers, and the events that came meanwhile."""

    def __init__(self, pid: int, commands: int, answers: int, log: Path) -> None:
        self.pid, self.commands, self.answers, self.log = pid, commands, answers, log
        self.held = b""
        self.last = 0
        self.replies: dict[int, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    def do(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """What the browser answers to a command. BrowserError when it refuses."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": params, **({"sessionId": session} if session else {})}
        data = json.dumps(message).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self.commands, data) :]
        except BrokenPipeError:
            raise BrowserError(f"{method}: the browser has ended. {self.said()}") from None
        until_s = time.monotonic() + PATIENCE_S
        while self.last not in self.replies:
            self.listen(method, until_s)
        reply = self.replies.pop(self.last)
        if "error" in reply:
            raise BrowserError(f"{method}: {reply['error']}")
        return reply["result"]

    def wait_for(self, event: str, session: str) -> dict[str, Any]:
        """The first event of this name that is still held or comes."""
        until_s = time.monotonic() + PATIENCE_S
        while True:
            for place, found in enumerate(self.events):
                if found["method"] == event and found.get("sessionId") == session:
                    return self.events.pop(place)
            self.listen(event, until_s)

    def listen(self, what: str, until_s: float) -> None:
        """Take in what the browser says, as soon as it says something."""
        if not select.select([self.answers], [], [], max(until_s - time.monotonic(), 0))[0]:
            raise BrowserError(f"{what}: no answer within {PATIENCE_S:g} s. {self.said()}")
        data = os.read(self.answers, READ_BYTES)
        if not data:
            raise BrowserError(f"{what}: the browser has ended. {self.said()}")
        *messages, self.held = (self.held + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self.replies[message["id"]] = message
            else:
                self.events.append(message)

    def said(self) -> str:
        """The end of its log."""
        return f"It said: {self.log.read_text(errors='replace')[-2000:]}"


@contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """A browser whose profile lies in this directory, running exactly as long as this block."""
    assert PROGRAM is not None
    log = directory / "browser.log"
    (hears, commands), (answers, says) = pipe(), pipe()
    try:
        pid = os.posix_spawn(
            PROGRAM, [PROGRAM, *FLAGS, f"--user-data-dir={directory / 'profile'}", "about:blank"],
            {**os.environ, "HOME": str(directory), "TMPDIR": str(directory), "DBUS_SESSION_BUS_ADDRESS": "disabled:"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                (os.POSIX_SPAWN_DUP2, hears, 3), (os.POSIX_SPAWN_DUP2, says, 4),
            ],
            setpgroup=0,
        )  # fmt: skip
    finally:
        os.close(hears)
        os.close(says)
    made = Browser(pid, commands, answers, log)
    try:
        yield made
        with contextlib.suppress(BrowserError):
            made.do("Browser.close")
    finally:
        end_of(pid)
        os.close(commands)
        os.close(answers)


def pipe() -> tuple[int, int]:
    """Both ends of a pipe, beyond the numbers that the browser wants."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    return ends[0], ends[1]


def end_of(pid: int) -> None:
    """Wait for the browser's end; with patience, then by force: it and what it has started, which are one process group."""
    until_s = time.monotonic() + FAREWELL_S
    while time.monotonic() < until_s and os.waitpid(pid, os.WNOHANG)[0] == 0:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


class Tab:
    """A page in a browser, and what it complained of."""

    def __init__(self, made: Browser) -> None:
        self.browser = made
        target = made.do("Target.createTarget", url="about:blank")["targetId"]
        self.session = made.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to this page."""
        return self.browser.do(method, self.session, **params)

    def open(self, url: str) -> None:
        """Go there, and return when the page has been loaded."""
        self.do("Page.navigate", url=url)
        self.browser.wait_for("Page.loadEventFired", self.session)

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page, which may be a promise of it."""
        found = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise BrowserError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Return once an expression is true."""
        limit_ms = 1000 * PATIENCE_S / 2
        self.ask(
            "new Promise((yes, no) => { const begun = performance.now(); const look = () => "
            f"({expression}) ? yes() : performance.now() - begun > {limit_ms} ? no(new Error('it never came')) "
            ": setTimeout(look, 20); look(); })"
        )

    def size(self, width: int, height: int = 900) -> None:
        """How large the window is."""
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def picture(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self.do("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"])

    def pdf(self) -> bytes:
        """The page, printed."""
        return base64.b64decode(self.do("Page.printToPDF")["data"])

    def complaints(self) -> list[str]:
        """Errors that it wrote into its console or did not catch, so far."""
        self.ask("0")  # What came before this has been heard by then.
        found = []
        for event in self.browser.events:
            what = event["params"]
            if event.get("sessionId") != self.session:
                continue
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(what["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled" and what["type"] in ("error", "assert"):
                found.append(json.dumps(what["args"]))
            elif event["method"] == "Log.entryAdded" and what["entry"]["level"] == "error":
                found.append(json.dumps(what["entry"]))
        return found
