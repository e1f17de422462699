"""The console as `make run` shows it, in a real browser: the demo's own results. Makes the pictures of the documents.

`external`: needs Debian's chromium and chromium-driver. The pictures of README.md and docs/console.md are made anew by

    EXAMRELAY_PICTURES=docs/images python -m pytest tests/acceptance/test_pictures.py
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.demo import play
from tests.acceptance.one_machine import Up
from tests.chromium import MISSING, Chromium, chromium
from tests.running import ROOT

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (Debian: chromium, chromium-driver)"),
]
FOLDER = os.environ.get("EXAMRELAY_PICTURES")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with Up(tmp_path) as running:
        yield running


def invited(up: Up) -> str:
    """A password that is good for once, from the command."""
    command, environ = [sys.executable, "-m", "worker", "console", "--sign-in"], up.environ | {"USER": "ann"}
    told = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True).stdout
    return told.partition("password ")[2].strip()


def taken(browser: Chromium, name: str) -> None:
    """A picture of what is seen now; the page is not wider than its window."""
    assert not browser.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth"), name
    if FOLDER:
        (ROOT / FOLDER / f"console-{name}.webp").write_bytes(browser.picture())


def test_the_console_shows_what_the_demo_sent(up: Up) -> None:
    outcomes, at = play(up.running), up.running.console
    (ambiguous,) = [one.events[0]["id"] for one in outcomes if one.scenario.name == "ambiguous match"]
    with chromium() as browser:
        browser.view(1280, 620)
        browser.open(f"{at}/sign-in")
        browser.type("#name", "ann")
        browser.type("#password", f"{invited(up)}\ue007")
        browser.wait_for("wait for a decision")
        taken(browser, "overview")
        browser.open(f"{at}/decide")
        taken(browser, "decide")
        browser.open(f"{at}/events/acme/{ambiguous}")
        browser.click("input[value=plan] ~ button")
        browser.wait_for("Which registration is it?")
        browser.run("document.querySelector('#acts').scrollIntoView()")
        taken(browser, "choose")
        browser.view(360, 720)
        browser.run("document.querySelector('#acts').scrollIntoView()")
        taken(browser, "telephone")
        browser.view(1280, 680)
        browser.click("input[name=registration]")
        browser.run("document.querySelector('input[name=registration]').form.querySelector('button').click()")
        browser.wait_for("Send 1 result on?")
        taken(browser, "preview")
        browser.view(1280, 620, dark=True)
        browser.open(f"{at}/events/acme/{ambiguous}")
        taken(browser, "event-dark")
