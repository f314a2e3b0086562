"""Debian's Chromium without a screen, driven by its DevTools protocol over pipes.

Pipes need no port: so a browser can run on a bed's wire, which only its programs can reach.
"""

import base64
import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from snf_ganeti import process
from snf_ganeti.errors import DeadlineError, NodeError
from testbed.deadline import wait_for
from testbed.drawing import Colour
from testbed.namespaces import make_enter_network_argv

_START_SECONDS = 120.0
_CALL_SECONDS = 60.0
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # it would need what a container's root may not do
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--ignore-certificate-errors",
)
Size = tuple[int, int]
DESKTOP: Size = (1024, 768)
PHONE: Size = (390, 780)


class Browser:
    """One page of a running Chromium."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdin and child.stdout
        self._input, self._output = child.stdin, child.stdout
        self._received = b""
        self._number = 0
        self._session = ""
        self.messages: list[str] = []
        """Errors of the page's scripts, and what its policy blocked."""

    def attach(self, size: Size) -> None:
        target = self.call("Target.createTarget", _CALL_SECONDS * 2, url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(size)

    def resize(self, size: Size) -> None:
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.wait_until(f"innerWidth === {width}", _CALL_SECONDS)

    def open(self, url: str) -> None:
        """Load a page, even where only what is after the # of its URL differs."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise's is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise NodeError(f"the page's script failed: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_until(self, script: str, seconds: float) -> None:
        """Until an expression in the page is true. Raises DeadlineError with the page's text."""
        wait_for(
            f"the page's {script}",
            lambda: bool(self.evaluate(f"document.body && ({script})")),
            seconds,
            interval=0.2,
            explain=lambda: (
                f"it shows {self.evaluate('document.body.innerText')!r}, "
                f"and said {self.messages[-5:]}"
            ),
        )

    def click(self, selector: str) -> None:
        """At the middle of the first element of a CSS selector."""
        box = self.evaluate(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box[0],
                y=box[1],
                button="left",
                clickCount=1,
            )

    def press(self, character: str) -> None:
        """Press and release the key of a letter or digit."""
        code = f"Key{character.upper()}" if character.isalpha() else f"Digit{character}"
        number = ord(character.upper())
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=character,
                code=code,
                text=character if kind == "keyDown" else "",
                windowsVirtualKeyCode=number,
            )

    def type_text(self, text: str) -> None:
        """Into the element that has the focus."""
        self.call("Input.insertText", text=text)

    def save_screenshot(self, path: Path) -> Path:
        shot = self.call("Page.captureScreenshot", format="png")["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot))
        return path

    def call(self, method: str, timeout: float = _CALL_SECONDS, **parameters: Any) -> Any:
        """One call of the DevTools protocol. Raises NodeError, DeadlineError."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._input.write(json.dumps(message).encode() + b"\0")
        self._input.flush()
        deadline = time.monotonic() + timeout
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise NodeError(f"Chromium refused {method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _receive(self, deadline: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready = select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready[0]:
                raise DeadlineError(f"Chromium's answer to {method}", _CALL_SECONDS)
            data = os.read(self._output.fileno(), 1 << 16)
            if not data:
                raise NodeError("Chromium ended", hint="see its log")
            self._received += data
        first, _, self._received = self._received.partition(b"\0")
        answer: dict[str, Any] = json.loads(first)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        entry = event.get("params", {}).get("entry", {})
        if event.get("method") == "Log.entryAdded" and entry["level"] == "error":
            self.messages.append(entry["text"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.messages.append(str(event["params"]["exceptionDetails"]))


_PIXEL = """(() => {
    const canvas = document.querySelector("#screen canvas");
    if (!canvas || canvas.width < 100) return "";
    return Array.from(canvas.getContext("2d").getImageData(20, 20, 1, 1).data.slice(0, 3)).join();
})()"""


def see_in_page(browser: Browser, colour: Colour, seconds: float = _START_SECONDS) -> None:
    """Wait until the console's page shows a colour. Raises DeadlineError."""
    browser.wait_until(f"{_PIXEL} === '{','.join(map(str, colour))}'", seconds)


@contextlib.contextmanager
def open_browser(
    log: Path,
    *,
    network: int | None = None,
    hosts: Mapping[str, str] | None = None,
    size: Size = DESKTOP,
) -> Iterator[Browser]:
    """A Chromium with an empty page, for the block. network: the id of the process whose
    network it uses; hosts: address by name, where no DNS knows it; log: what it prints."""
    with tempfile.TemporaryDirectory(prefix="browser-") as profile:
        rules = ",".join(f"MAP {name} {address}" for name, address in (hosts or {}).items())
        options = (f"--user-data-dir={profile}", f"--host-resolver-rules={rules}")
        argv: Sequence[str] = ["chromium", *_OPTIONS, *options, "about:blank"]
        # Chromium reads from descriptor 3 and writes to 4.
        argv = ["bash", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "browser", *argv]
        if network is not None:
            argv = make_enter_network_argv(network, argv)
        with (
            log.open("ab") as errors,
            process.spawn(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={"HOME": profile, "XDG_RUNTIME_DIR": profile},
            ) as child,
        ):
            browser = Browser(child)
            browser.attach(size)
            yield browser


def save_console(
    url: str,
    path: Path,
    log: Path,
    *,
    network: int | None = None,
    hosts: Mapping[str, str] | None = None,
) -> Path:
    """Open a console's URL, wait for the instance's screen, and save what the page looks like."""
    with open_browser(log, network=network, hosts=hosts) as browser:
        browser.open(url)
        browser.wait_until("document.body.dataset.state === 'connected'", _START_SECONDS)
        browser.wait_until("document.querySelector('#screen canvas').width > 1", _START_SECONDS)
        return browser.save_screenshot(path)
