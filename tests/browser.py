"""A headless Chromium, driven by the DevTools protocol over websocket-client: what a person sees and does, and what the browser
has to complain of."""

import base64
import contextlib
import json
import pathlib
import subprocess
import tempfile
import threading
import time
from typing import Any, Iterator
from urllib.request import urlopen

import needs
import websocket

CEILING = 20.0

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)

#: What a test types, as the protocol names it.
_KEYS = {"Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, ""), " ": ("Space", 32, " "), "Escape": ("Escape", 27, "")}


class Tab:
    """A tab of the browser.

    Attributes:
        complaints: What the browser has logged and what scripts of the page have not caught, violations of a policy included.
    """

    def __init__(self, port: int, address: str, target: str) -> None:
        self._port = port
        self._target = target
        self._socket = websocket.create_connection(address, timeout=CEILING)
        self._last_id = 0
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **parameters: Any) -> Any:
        """Send a command of the protocol, and return its result."""
        self._last_id += 1
        self._socket.send(json.dumps({"id": self._last_id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._last_id:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._heard(message)

    def _heard(self, message: Any) -> None:
        if message["method"] == "Runtime.exceptionThrown":
            details = message["params"]["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] in ("warning", "error"):
            self.complaints.append(message["params"]["entry"]["text"])

    def open(self, url: str, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Go to a page, with a window of so many pixels, in a colour scheme."""
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.tell("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        found = self.tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (script, found["exceptionDetails"])
        return found["result"].get("value")

    def wait(self, condition: str, ceiling: float = CEILING) -> Any:
        """Wait until an expression is true, and return its value."""
        deadline, pause = time.monotonic() + ceiling, threading.Event()
        while True:
            value = self.run(condition)
            if value not in (None, False, 0, ""):  # an element is an empty object
                return value
            assert time.monotonic() < deadline, f"this did not come true: {condition}\n{self.run('document.body.innerText')}"
            pause.wait(0.03)

    def text(self, selector: str = "body") -> str:
        """What a person reads in the first element that there is."""
        self.wait(f"document.querySelector({selector!r})")
        found: str = self.run(f"document.querySelector({selector!r}).innerText")
        return found

    def click(self, selector: str) -> None:
        """Click where an element is, as a mouse does."""
        where = self.wait(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null; e.scrollIntoView();"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.tell("Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], button="left", clickCount=1)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and let go of a key: Enter, Tab, Escape or the space bar."""
        code, number, text = _KEYS[key]
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
        self.tell("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.tell("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.tell("Input.insertText", text=text)

    def fill(self, selector: str, text: str) -> None:
        """Put text into a field in place of what is there."""
        self.wait(f"document.querySelector({json.dumps(selector)})")
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.run("document.activeElement.select?.()")
        self.type(text)

    def screenshot(self, path: str, *, whole: bool = False) -> None:
        """Write what is seen into a PNG file."""
        found = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        pathlib.Path(path).write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """Close the tab."""
        self._socket.close()
        urlopen(f"http://127.0.0.1:{self._port}/json/close/{self._target}", timeout=CEILING).close()


class Browser:
    """A Chromium that runs; its profile is new."""

    def __init__(self, port: int) -> None:
        self._port = port

    @contextlib.contextmanager
    def tab(self) -> Iterator[Tab]:
        """A new tab, closed afterwards."""
        version = self._ask("/json/version")
        browser = websocket.create_connection(version["webSocketDebuggerUrl"], timeout=CEILING)
        browser.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
        target = json.loads(browser.recv())["result"]["targetId"]
        browser.close()
        tab = Tab(self._port, f"ws://127.0.0.1:{self._port}/devtools/page/{target}", target)
        try:
            yield tab
        finally:
            tab.close()

    def _ask(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=CEILING) as response:
            return json.load(response)


@contextlib.contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """A browser while the block runs; skips the test where none is installed."""
    program = needs.program("chromium")
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [program, *_FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Browser(_port_of(process, pathlib.Path(profile, "DevToolsActivePort")))
        finally:
            process.terminate()
            process.wait(CEILING)


def _port_of(process: "subprocess.Popen[bytes]", file: pathlib.Path) -> int:
    deadline, pause = time.monotonic() + CEILING, threading.Event()
    while not (file.exists() and file.read_text().count("\n")):
        assert process.poll() is None and time.monotonic() < deadline, "Chromium did not start"
        pause.wait(0.05)
    return int(file.read_text().split("\n")[0])
