"""Bad days of Rhythm, with real workers: events wait, spend nothing, and go through afterwards."""

import signal
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from tests.acceptance.stack import Stack, stack_at
from tests.acceptance.test_survival import seed
from tests.events import certiverse, registration
from tests.pipeline import ORG
from tests.running import wait_until

PACE = 5
BETA = """
[tenants.beta.rhythm]
url = "{url}"
tenant_id = "beta.org"
credentials = {{ kind = "api_key", key = "env:ACME_RHYTHM" }}
[tenants.beta.sources.certiverse]
credentials = [ {{ kind = "basic", user = "certiverse", password = "env:ACME_CERTIVERSE" }} ]
[[tenants.beta.exams]]
exam_id = "exam-1"
codes = ["CERT-1"]
"""


@pytest.fixture
def stack(rhythm: Sandbox, tmp_path: Path) -> Iterator[Stack]:
    """Four worker processes in two workers; `acme` paced, `beta` not."""
    tables = {"rhythm": f"calls_per_second = {PACE}", "more": BETA.format(url=rhythm.url)}
    with stack_at(tmp_path, rhythm, tables, EXAMRELAY_LEASE_SECONDS="20", EXAMRELAY_SWEEP_SECONDS="1") as running:
        running.start("web", "worker", "second", "sweeper", "beat")
        yield running


def began(stack: Stack, after: int = 0) -> list[float]:
    """When each call to Rhythm began, in seconds."""
    return [one["at"] for one in stack.rhythm.requests(after)]


@pytest.mark.parametrize(("seconds", "as_date"), [(15, False), (12, True)], ids=["seconds", "a date"])
def test_nobody_calls_before_retry_after_not_even_after_a_restart_of_all(
    stack: Stack, seconds: int, as_date: bool
) -> None:
    theirs = time.time() - 3600  # Rhythm's clock, an hour behind: a date counts from the answer's own
    asked = formatdate(theirs + seconds, usegmt=True) if as_date else str(seconds)
    headers = {"Date": formatdate(theirs, usegmt=True), "Retry-After": asked}
    stack.rhythm.fault("status", status=429, headers=headers, times=1)
    bodies, ids = seed(stack, 40)
    delivered = stack.deliver(bodies)
    (refused,) = wait_until(lambda: [one for one in stack.rhythm.requests() if one["status"] == 429], 20, "the 429")
    wait_until(lambda: stack.client.hget("er:acme:gate", "closed_until"), 5, "the closed gate")
    for name in list(stack.running):
        stack.end(name, signal.SIGKILL)
    stack.valkey.stop(signal.SIGKILL)
    stack.valkey.start()
    stack.start("web", "worker", "second", "sweeper", "beat")
    stack.synced(40, seconds + 30)
    later = [at for at in began(stack) if at > refused["at"]]
    assert min(later) >= refused["ended_at"] + seconds
    assert {stack.event(id).attempts for id in delivered} == {0}
    stack.written_once(ids)


@pytest.mark.alone
def test_a_backlog_drains_at_the_allowed_pace_after_an_outage(stack: Stack) -> None:
    stack.rhythm.fault("status", status=503, times=None)
    bodies, ids = seed(stack, 2000)
    stack.deliver(bodies)
    wait_until(stack.rhythm.requests, 20, "the first call")
    stack.rhythm.options(rate_limit={"calls_per_second": PACE * 1.05, "burst": 2, "retry_after": "seconds"})
    before = len(stack.rhythm.requests())
    stack.rhythm.clear_faults()
    stack.synced(2000, 90)
    calls = began(stack)[before:]
    assert not [one for one in stack.rhythm.requests()[before:] if one["status"] == 429]
    pace = (len(calls) - 1) / (calls[-1] - calls[0])
    assert pace >= 0.95 * PACE, f"{pace:.2f} calls a second of {PACE}"
    assert pace <= 1.05 * PACE
    stack.written_once(ids[::100])


def test_one_event_whose_write_always_fails_does_not_stop_its_tenant(stack: Stack) -> None:
    bodies, ids = seed(stack, 1)
    stack.rhythm.fault("status", status=500, kind="patch", ids=ids, times=None)
    stack.rhythm.fault("item_error", status=500, ids=ids, times=None)
    (failing,) = stack.deliver(bodies)
    wait_until(lambda: stack.event(failing).attempts >= 2, 40, "two attempts")
    more, more_ids = seed(stack, 30, begin=1)
    stack.deliver(more)
    stack.synced(30, 30)
    event = stack.event(failing)
    assert (event.state, event.reason) == (EventState.READY, Reason.RHYTHM_UNAVAILABLE)
    assert stack.client.hget("er:acme:gate", "closed_until") is None
    stack.written_once(more_ids)


def test_refused_credentials_wait_and_go_through_when_they_are_mended(stack: Stack) -> None:
    stack.rhythm.options(api_keys={"the new key": None})
    bodies, ids = seed(stack, 20)
    delivered = stack.deliver(bodies)
    wait_until(lambda: stack.client.hget("er:acme:gate", "reason") == b"credentials_refused", 20, "the closed gate")
    stack.environ["ACME_RHYTHM"] = "the new key"
    for name in ("worker", "second"):
        stack.end(name, signal.SIGTERM)
        stack.start(name)
    stack.synced(20, 60)
    assert {stack.event(id).attempts for id in delivered} == {0}
    stack.written_once(ids)


@pytest.mark.alone
def test_a_tenant_whose_rhythm_hangs_does_not_delay_another(stack: Stack) -> None:
    stack.rhythm.fault("hang", seconds=20, tenant=ORG, times=None)
    bodies, _ = seed(stack, 1500)
    stack.deliver(bodies)
    wait_until(stack.rhythm.requests, 20, "a call that hangs")
    stack.rhythm.seed("beta.org", [registration()])
    started = time.monotonic()
    stack.deliver([certiverse("dlv-beta")], tenant="beta")
    stack.synced(1, 10, tenant="beta")
    assert time.monotonic() - started < 3
