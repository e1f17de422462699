"""A real browser without a screen: Debian's Chromium, driven by chromedriver over W3C WebDriver. Nothing is fetched."""

import base64
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import requests

from tests.running import free_port, wait_until

NEEDED: Final = ("chromium", "chromedriver")
MISSING: Final = [name for name in NEEDED if shutil.which(name) is None]
_ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"


def axe() -> Path | None:
    """axe-core, where npm has put it (`npm install --global axe-core`); None without it."""
    if shutil.which("npm") is None:
        return None
    root = subprocess.run(["npm", "root", "--global"], capture_output=True, text=True, check=True).stdout.strip()
    found = Path(root) / "axe-core" / "axe.min.js"
    return found if found.exists() else None


class Chromium:
    """One window."""

    def __init__(self, driver: str) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        options = {"goog:chromeOptions": {"args": list(_ARGUMENTS)}}
        self._at = driver
        self._at = f"{driver}/session/{self._ask('/session', capabilities={'alwaysMatch': options})['sessionId']}"

    def _ask(self, path: str, **body: Any) -> Any:
        answer = self._session.post(self._at + path, json=body, timeout=60).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def close(self) -> None:
        self._session.delete(self._at, timeout=30)
        self._session.close()

    def view(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """How wide the window is, and what the system wishes."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._developer("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._developer("Emulation.setEmulatedMedia", features=scheme)

    def _developer(self, command: str, **parameters: Any) -> Any:
        return self._ask("/goog/cdp/execute", cmd=command, params=parameters)

    def scripts(self, *, run: bool) -> None:
        """Whether the pages' own scripts run."""
        self._developer("Emulation.setScriptExecutionDisabled", value=not run)

    def open(self, url: str) -> None:
        self._ask("/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script of ours returns."""
        return self._ask("/execute/sync", script=script, args=list(arguments))

    def later(self, script: str) -> Any:
        """What a script hands to its last argument."""
        return self._ask("/execute/async", script=script, args=[])

    def _find(self, css: str) -> str:
        found: str = self._ask("/element", using="css selector", value=css)[_ELEMENT]
        return found

    def click(self, css: str) -> None:
        self._ask(f"/element/{self._find(css)}/click")

    def type(self, css: str, text: str) -> None:
        self._ask(f"/element/{self._find(css)}/value", text=text)

    @property
    def text(self) -> str:
        """What is to be read."""
        return str(self.run("return document.body.innerText"))

    def wait_for(self, words: str) -> None:
        """Until the page that was asked for is there."""
        wait_until(lambda: words in self.text, 10, words)

    @property
    def path(self) -> str:
        return str(self.run("return location.pathname + location.search"))

    def picture(self) -> bytes:
        """The window as WebP: a third of the size of a PNG."""
        return base64.b64decode(self._developer("Page.captureScreenshot", format="webp", quality=80)["data"])


@contextmanager
def chromium() -> Iterator[Chromium]:
    """A running browser."""
    port = free_port()
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: requests.get(f"{url}/status", timeout=5).json()["value"]["ready"], 30, "chromedriver")
        window = Chromium(url)
        try:
            yield window
        finally:
            window.close()
    finally:
        driver.terminate()
        driver.wait(20)
