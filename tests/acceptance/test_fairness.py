"""One tenant's backlog and another's single events: those wait for a batch, not for the backlog."""

import json
import os
import signal
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox.control import Sandbox
from schemas.outcome import Source
from tests.acceptance.stack import Stack, stack_at
from tests.acceptance.test_patience import BETA
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT
from tests.tenants import ENVIRON
from worker.receiver.intake import Intake
from worker.settings import Settings

pytestmark = pytest.mark.alone
#: With EXAMRELAY_FULL=1 the backlog of which docs/design.md has the figures.
WAITING, STILL, PAGE = (50_000, 10_000, 500) if os.environ.get("EXAMRELAY_FULL") == "1" else (20_000, 2_000, 500)
SINGLES = 20
#: An event may find a batch before it at each of its stages; seconds, for the machine has other work.
STAGES = 2
SLACK = 0.4


@pytest.fixture
def stack(rhythm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """One worker as in the Procfile, and a Rhythm that takes 50 ms for a call; `acme` and `beta` alike."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    rhythm.options(latency_ms=50)
    with stack_at(tmp_path, rhythm, {"more": BETA.format(url=rhythm.url)}) as running:
        running.start("web", "worker", "sweeper", "beat")
        yield running


def singles(stack: Stack, name: str) -> list[float]:
    """Deliver events of `beta` one after another. Returns how long each took from its 202 until it was synced."""
    ids = [f"{name}-{number}" for number in range(SINGLES)]
    stack.rhythm.seed("beta.org", [registration(id, student_id=f"stu-{id}") for id in ids])
    before, took = stack.counts("beta").get("synced", 0), []
    for number, id in enumerate(ids, 1):
        stack.deliver([certiverse(f"dlv-{id}", id, student=f"stu-{id}")], "beta")
        accepted_at = time.monotonic()
        stack.synced(before + number, 20, "beta")
        took.append(time.monotonic() - accepted_at)
    return took


def fill(stack: Stack) -> None:
    """Record a backlog of `acme`, several at a time, while the worker stands still: all is due at once."""
    stack.end("worker", signal.SIGSTOP)
    intake = Intake(Settings(REDIS_URL=stack.valkey.url, config=Path(stack.environ["EXAMRELAY_CONFIG"])))
    with ThreadPoolExecutor(8) as senders:
        for begin in range(0, WAITING, PAGE):
            ids = [f"reg-{number}" for number in range(begin, begin + PAGE)]
            stack.rhythm.seed(ORG, [registration(id, student_id=f"stu-{id}") for id in ids])
            bodies = [certiverse(f"dlv-{id}", id, student=f"stu-{id}") for id in ids]
            list(senders.map(lambda body: intake.accept(TENANT, Source.CERTIVERSE, body), bodies))
    intake.close()
    stack.end("worker", signal.SIGCONT)


def batches(stack: Stack) -> list[float]:
    """How long each batch of `acme` took, in seconds, by the worker's log."""
    lines = [
        line[line.index("{") :] for line in stack.log("worker").read_text().splitlines() if "batch.applied" in line
    ]
    told = [json.loads(line) for line in lines]
    return [one["ms"] / 1000 for one in told if one["tenant"] == TENANT]


def waiting(stack: Stack) -> int:
    """How many events of `acme` are not in Rhythm yet."""
    counts = stack.counts()
    return counts.get("received", 0) + counts.get("ready", 0)


def test_a_backlog_of_one_tenant_delays_another_tenants_event_by_no_more_than_a_batch(stack: Stack) -> None:
    singles(stack, "first")
    idle = singles(stack, "idle")
    filling_at = time.monotonic()
    fill(stack)
    stack.synced(300, 20)  # both stages are at it
    began_at = time.monotonic()
    busy = singles(stack, "busy")
    ended_at, left, took = time.monotonic(), waiting(stack), batches(stack)
    usual, longest = statistics.median(idle), max(took)
    print(
        f"\n{WAITING} recorded in {began_at - filling_at:.1f} s; in {ended_at - began_at:.1f} s more {left} wait"
        f"\nidle: median {usual:.3f} s, most {max(idle):.3f} s"
        f"\nbusy: median {statistics.median(busy):.3f} s, most {max(busy):.3f} s"
        f"\nbatches: median {statistics.median(took):.3f} s, most {longest:.3f} s"
    )
    assert left > STILL, "there was a backlog all the time"
    assert max(busy) < usual + STAGES * longest + SLACK
