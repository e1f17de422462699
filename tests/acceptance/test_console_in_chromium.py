"""The console in a real browser: each page and act, narrow and wide, light and dark, with a keyboard, as axe sees it.

`external`: needs Debian's chromium and chromium-driver; `npm install --global axe-core` for what axe looks at.
"""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox, start
from schemas.event import EventState
from schemas.outcome import Source
from tests.chromium import MISSING, Chromium, axe, chromium
from tests.console_peer import PASSWORD, USERS, console
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from worker.ledger.processes import Presence, Process

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (Debian: chromium, chromium-driver)"),
]
VIEWS = [(360, False), (360, True), (1280, False), (1280, True)]
#: What axe holds against a page, in a form that fits a message.
AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}).then(
  found => done(found.violations.map(one => one.id + ": " + one.nodes.map(node => node.html).slice(0, 3).join(" | "))),
  error => done(["axe: " + error]));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as window:
        yield window


@pytest.fixture
def stood_in() -> Iterator[Sandbox]:
    with start() as sandbox:
        yield sandbox


@pytest.fixture
def ledger(client: "redis.Redis", stood_in: Sandbox, tmp_path: Path) -> Iterator[Pipeline]:
    """Results of every fate, all processes alive."""
    with pipeline_at(tmp_path, stood_in, more=USERS.replace('"beta"', '"acme"')) as built:
        names = [("Ana", "Example"), ("Ben", "Example")]
        stood_in.seed(
            ORG,
            [
                registration("reg-104", date="2026-01-05T00:00:00Z", exam_date="2026-05-04T00:00:00Z"),
                registration("reg-133", date="2026-04-02T00:00:00Z", exam_date="2026-05-04T00:00:00Z"),
                *(registration(f"reg-{n}", student_id=f"stu-{n}") for n in range(2, 40)),
            ],
        )
        bodies = [certiverse(registration=None)]
        bodies += [certiverse(f"dlv-{n}", f"reg-{n}", student=f"stu-{n}") for n in range(2, 30)]
        bodies += [certiverse(f"new-{n}", f"reg-{n}", student=f"stu-{n}", exam="CERT-9") for n in range(30, 34)]
        bodies += [certiverse("p", "reg-34", student="stu-34", termination="proctor"), b"not JSON"]
        for number, body in enumerate(bodies):
            built.deliver(named(body, *names[number % 2]), Source.CERTIVERSE)
        built.sync()
        for kind in ("web", "worker", "sweeper", "beat"):
            process = Process(kind, f"{kind}@here", built.services.tenants.digest)
            built.ledger.scripts("seen", *Presence(process).arguments())
        built.ledger.sweep(TENANT, timedelta(0), 10)
        yield built


@pytest.fixture
def url(ledger: Pipeline, browser: Chromium) -> Iterator[str]:
    with console(ledger.services) as address:
        browser.view(1280)
        browser.open(f"{address}/sign-in")
        browser.run("document.querySelector('#name').value = ''")
        browser.type("#name", "ann")
        browser.type("#password", PASSWORD + "\ue007")
        assert browser.path == "/"
        yield address


def named(body: bytes, first: str, last: str) -> bytes:
    """A payload with the candidate's name."""
    if not body.startswith(b"{"):
        return body
    payload = json.loads(body)
    payload["candidate"] |= {"firstName": first, "lastName": last}
    return json.dumps(payload).encode()


def held(ledger: Pipeline, reason: str) -> str:
    ids = [id.decode() for id in ledger.services.redis.zrange(f"er:{TENANT}:held", 0, -1)]
    return next(id for id in ids if ledger.event(id).reason == reason)


def problems(browser: Chromium) -> list[str]:
    """What is wrong with the page that is open: too wide for its window, or what axe finds."""
    found: list[str] = []
    if browser.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth"):
        found.append("wider than its window")
    script = axe()
    if script is not None:
        browser.run(script.read_text())
        found += browser.later(AXE)
    return found


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_each_page_is_whole_and_legible(browser: Chromium, ledger: Pipeline, url: str, width: int, dark: bool) -> None:
    browser.view(width, 900 if width > 600 else 760, dark=dark)
    ambiguous = held(ledger, "registration_ambiguous")
    pages = {
        "overview": "/",
        "decide": "/decide",
        "group": "/decide/acme/held/unknown_exam",
        "events": "/events",
        "event": f"/events/acme/{ambiguous}",
        "strays": "/strays",
        "configuration": "/configuration",
        "failure": "/nowhere",
    }
    found = {}
    for name, path in pages.items():
        browser.open(url + path)
        found[name] = problems(browser)
    browser.open(f"{url}/events/acme/{ambiguous}")
    browser.click("input[value=plan] ~ button")
    browser.wait_for("Which registration is it?")
    found["plan"] = problems(browser)
    browser.click("input[value=reg-104]")
    browser.run("document.querySelector('input[name=registration]').form.querySelector('button').click()")
    browser.wait_for("Send 1 result on?")
    found["preview"] = problems(browser)
    assert {name: what for name, what in found.items() if what} == {}


def test_a_decision_is_made_with_the_keyboard_alone_and_without_scripts(
    browser: Chromium, ledger: Pipeline, url: str
) -> None:
    event = held(ledger, "integrity_review")
    browser.scripts(run=False)
    try:
        browser.open(f"{url}/decide")
        assert "results wait for a person" in browser.text
        browser.open(f"{url}/events/acme/{event}")
        assert "UTC" in browser.text
        browser.type("#why", "reviewed\ue007")
        browser.wait_for("Send 1 result on?")
        browser.type("form[action='/act'] button", "\ue007")
        browser.wait_for("1 result was sent on")
    finally:
        browser.scripts(run=True)
    assert ledger.event(event).state is EventState.RECEIVED
    told = [(line.move, line.reason) for line in ledger.event(event).history if line.by == "operator:ann"]
    assert told == [("look", "plan"), ("replay", "reviewed")]


def test_times_are_the_readers_and_the_policy_lets_no_other_script_run(browser: Chromium, url: str) -> None:
    browser.open(f"{url}/events")
    assert browser.run("return document.querySelector('time').title").endswith("UTC")
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.broke = 1'; document.body.append(s)"
    )
    assert browser.run("return window.broke === undefined")
