"""Workers restarted in turn, again and again, while events keep coming: nothing is lost, doubled, held or buried."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.control import Sandbox
from schemas.event import EventState
from tests.acceptance.stack import Stack, stack_at
from tests.acceptance.test_survival import seed, under_way
from tests.running import wait_until
from worker.celery import app

WORKERS = ("worker", "second")
ROUNDS = {signal.SIGTERM: 3, signal.SIGKILL: 6}
MOST, PAUSE = 4000, 0.02
SOFT_SHUTDOWN_SECONDS = app.conf.worker_soft_shutdown_timeout


@pytest.fixture
def stack(rhythm: Sandbox, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Two workers and a Rhythm that takes its time. `request.param`: the leases' seconds."""
    rhythm.options(latency_ms=40)
    with stack_at(tmp_path, rhythm, EXAMRELAY_LEASE_SECONDS=request.param, EXAMRELAY_SWEEP_SECONDS="1") as running:
        running.start("web", *WORKERS, "sweeper", "beat")
        yield running


@contextmanager
def load(stack: Stack, bodies: list[bytes], accepted: list[str]) -> Iterator[None]:
    """Deliver one event after another until the block ends. As platforms do, send again what is answered with 503."""
    over = threading.Event()

    def deliver() -> None:
        for body in bodies:
            while not over.wait(PAUSE):
                answer = stack.post(body)
                if answer.status_code != 503:
                    assert answer.status_code == 202, answer.text
                    accepted.append(answer.json()["id"])
                    break

    thread = threading.Thread(target=deliver)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def restart(stack: Stack, name: str, how: signal.Signals) -> None:
    """End a worker in the middle of a batch, and start it again."""
    wait_until(lambda: under_way(stack), 20, "a write under way")
    if how is signal.SIGKILL:
        stack.end(name, how)
    else:
        stack.running[name].terminate()  # the process alone: it ends its children when they are done
        assert stack.running[name].wait(SOFT_SHUTDOWN_SECONDS) == 0
        del stack.running[name]
    stack.start_ready(name)


def waiting(stack: Stack) -> int:
    """How many events are neither final nor with a person."""
    counts = stack.counts()
    return counts.get(EventState.RECEIVED, 0) + counts.get(EventState.READY, 0)


def moves(stack: Stack, ids: list[str]) -> Counter[str]:
    """How often each move is in the history of the event that has it most often."""
    most: Counter[str] = Counter()
    for id in ids:
        most |= Counter(entry.move for entry in stack.event(id).history)
    return most


@pytest.mark.parametrize(
    ("stack", "how"),
    [pytest.param("20", signal.SIGTERM, id="a deployment"), pytest.param("3", signal.SIGKILL, id="kills")],
    indirect=["stack"],
)
def test_rolling_restarts_under_load_bury_nothing(stack: Stack, how: signal.Signals) -> None:
    bodies, registrations = seed(stack, MOST)
    accepted: list[str] = []
    with load(stack, bodies, accepted):
        wait_until(lambda: stack.counts().get("synced"), 20, "the first synced event")
        for _ in range(ROUNDS[how]):
            for name in WORKERS:
                restart(stack, name, how)
    wait_until(lambda: not waiting(stack), 60, "the end of all that waits")
    counts, seen = stack.counts(), moves(stack, accepted)
    print(f"\n{how.name}: {len(accepted)} events, {stack.rhythm.counts()['calls']} calls, moves at most {dict(seen)}")
    assert not counts.get(EventState.DEAD)
    assert not counts.get(EventState.HELD)
    assert "bury" not in seen
    assert counts["accepted"] == counts[EventState.SYNCED] == len(set(accepted)) > 300
    assert ("lease.expired" in seen) is (how is signal.SIGKILL), "a warm shutdown loses no lease"
    assert stack.books().differences == ()
    stack.written_once(registrations[: len(accepted)])
