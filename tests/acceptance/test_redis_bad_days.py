"""Redis goes away, hangs, fills up, is slow, or its disk is full, under a stream of deliveries and busy workers.

Meanwhile each sender gets its answer in time, 202 or 503 with `Retry-After`, and `enqueue` returns or raises in time.
Afterwards deliveries are accepted again and the work goes on, by itself. Only with EXAMRELAY_FULL=1 (`make proofs`):
each trouble comes several times, and how soon things go on is printed.
"""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import requests

from sandbox.control import Sandbox
from tests.acceptance.stack import Stack
from tests.events import certiverse, registration
from tests.intakes import an_intake
from tests.pipeline import ORG
from tests.running import Valkey, wait_until
from tests.slow import SlowProxy, slow_proxy
from tests.tenants import ENVIRON
from worker.errors import LedgerUnavailable
from worker.ledger import queries
from worker.receiver.intake import Intake

FULL = os.environ.get("EXAMRELAY_FULL") == "1"
TIMES, LASTS, SENDERS = 5, 3.0, 3
DISK_MEGABYTES = 16


class Day:
    """All processes on a Redis that is reached through a proxy and has a small disk of its own, where that may be."""

    def __init__(self, stack: Stack, proxy: SlowProxy, disk: Path | None) -> None:
        self.stack, self.proxy, self.disk = stack, proxy, disk


Trouble = Callable[[Day], Iterator[None]]


def killed(day: Day) -> Iterator[None]:
    day.stack.valkey.stop(signal.SIGKILL)
    yield
    day.stack.valkey.start()


def terminated(day: Day) -> Iterator[None]:
    day.stack.valkey.stop(signal.SIGTERM)
    yield
    day.stack.valkey.start()


def frozen(day: Day) -> Iterator[None]:
    day.stack.valkey.pause()
    yield
    day.stack.valkey.resume()


def full(day: Day) -> Iterator[None]:
    day.stack.client.config_set("maxmemory", int(day.stack.client.info("memory")["used_memory"] / 0.9))
    yield
    day.stack.client.config_set("maxmemory", 0)


def slow(day: Day) -> Iterator[None]:
    day.proxy.seconds = 2
    yield
    day.proxy.seconds = 0


def disk_full(day: Day) -> Iterator[None]:
    """With `appendfsync always` Redis ends when it cannot write; it is started again, again and again."""
    if day.disk is None:
        pytest.skip("no disk of its own: mounting one is not allowed here")
    filler, ends = day.disk / "filler", threading.Event()
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        for _ in range(DISK_MEGABYTES * 1024):
            file.write(b"x" * 1024)
    wait_until(lambda: day.stack.valkey.ended, 20, "the end of Redis")

    def supervise() -> None:
        while not ends.wait(0.3):
            if day.stack.valkey.ended:
                with suppress(AssertionError):
                    day.stack.valkey.start()

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    yield
    filler.unlink()
    wait_until(lambda: day.stack.client.set("er:seen", "a write") and not day.stack.valkey.ended, 20, "Redis")
    ends.set()
    supervisor.join()


TROUBLES: list[Trouble] = [killed, terminated, frozen, full, slow, disk_full]
pytestmark = [pytest.mark.external, pytest.mark.skipif(not FULL, reason="needs EXAMRELAY_FULL=1: it takes minutes")]


@pytest.fixture(scope="module")
def day(running_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """Started once for all."""
    folder = tmp_path_factory.mktemp("days")
    running_sandbox.reset()
    with ExitStack() as ends:
        disk = ends.enter_context(_small_disk(folder / "disk"))
        valkey = Valkey(inside=disk).start()
        ends.callback(valkey.close)
        proxy = ends.enter_context(slow_proxy(valkey.port))
        environ = {"EXAMRELAY_SWEEP_SECONDS": "1", "EXAMRELAY_LEASE_SECONDS": "8"}
        stack = Stack(folder, valkey, running_sandbox, {}, environ)
        stack.environ["REDIS_URL"] = proxy.url
        ends.callback(stack.close)
        for name in ("worker", "sweeper"):  # ready, for one that starts while Redis is away ends with a message
            stack.start_ready(name)
        stack.start("beat", "web")
        wait_until(lambda: queries.swept_at(stack.client), 30, "a sweep, so that beat is ready too")
        yield Day(stack, proxy, disk)


@contextmanager
def _small_disk(place: Path) -> Iterator[Path | None]:
    """A file system in memory, or None where none may be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", place]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    yield place
    subprocess.run(["umount", "-l", place], check=True)


class Stream:
    """Deliveries all the time, over HTTP and by `enqueue`; what is refused is sent again."""

    def __init__(self, day: Day, intake: Intake, name: str) -> None:
        self._day, self._intake, self._name, self._ends = day, intake, name, threading.Event()
        #: (when, seconds, what was answered); of `enqueue` too.
        self.answers: list[tuple[float, float, str]] = []
        self.enqueued: list[tuple[float, float, str]] = []
        #: When each registration's result was accepted.
        self.accepted: dict[str, float] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        acts = [self._post] * SENDERS + [self._enqueue]
        threads = [threading.Thread(target=self._send, args=each) for each in enumerate(acts)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ends.set()
            for thread in threads:
                thread.join()

    def _send(self, sender: int, deliver: Callable[[bytes], bool]) -> None:
        number = 0
        while not self._ends.is_set():
            id, number = f"reg-{self._name}-{sender}-{number}", number + 1
            self._day.stack.rhythm.seed(ORG, [registration(id, student_id=f"stu-{id}")])
            body = certiverse(f"dlv-{id}", id, student=f"stu-{id}")
            while not deliver(body):
                if self._ends.wait(0.05):
                    return
            self.accepted[id] = time.monotonic()

    def _post(self, body: bytes) -> bool:
        began = time.monotonic()
        answer = requests.post(
            f"{self._day.stack.url}/v1/acme/certiverse",
            body,
            auth=("certiverse", ENVIRON["ACME_CERTIVERSE"]),
            timeout=9,
        )
        told = f"{answer.status_code} {answer.headers.get('Retry-After', '')}".strip()
        self.answers.append((time.monotonic(), time.monotonic() - began, told))
        return answer.status_code == 202

    def _enqueue(self, body: bytes) -> bool:
        began, told = time.monotonic(), "accepted"
        try:
            self._intake.accept("acme", "certiverse", body)
        except LedgerUnavailable:
            told = "refused"
        self.enqueued.append((time.monotonic(), time.monotonic() - began, told))
        return told == "accepted"


@pytest.mark.parametrize("trouble", TROUBLES)
def test_all_are_answered_in_time_and_work_goes_on_by_itself(
    day: Day,
    trouble: Trouble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    intake = an_intake(day.stack.valkey, tmp_path, monkeypatch, REDIS_URL=day.proxy.url)
    pids = {name: process.pid for name, process in day.stack.running.items()}
    figures = []
    for number in range(TIMES):
        stream = Stream(day, intake, f"{trouble.__name__}{number}")
        with stream.running():
            wait_until(lambda stream=stream: len(stream.accepted) > 20, 30, "deliveries")
            over = _endure(day, trouble)
            goes_on = wait_until(lambda stream=stream, over=over: _next(stream, over), 60, "an answer")
        _answered_in_time(stream)
        refused = sum(told != "202" for _, _, told in stream.answers)
        assert refused, "it was met"
        done = wait_until(lambda stream=stream: _all_written(day, stream), 120, "all that was accepted") - over
        figures.append((*goes_on, done, refused))
        assert day.stack.books().differences == ()
    assert {name: process.pid for name, process in day.stack.running.items() if process.poll() is None} == pids
    intake.close()
    names = ("next 202", "next enqueue", "all that was accepted is in Rhythm")
    spread = {
        name: f"p50 {sorted(each)[len(each) // 2]:.2f} s, max {max(each):.2f} s"
        for name, each in zip(names, zip(*figures, strict=True), strict=False)
    }
    record_property(trouble.__name__, spread | {"refused": sum(each[-1] for each in figures)})


def _endure(day: Day, trouble: Trouble) -> float:
    """Let the trouble come, last and end. Returns when it was over."""
    lasting = trouble(day)
    next(lasting)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + LASTS, LASTS + 1, "its end")
    with suppress(StopIteration):
        next(lasting)
    return time.monotonic()


def _next(stream: Stream, over: float) -> tuple[float, float] | None:
    """How long after it was over a delivery was accepted again, over HTTP and by `enqueue`."""
    posted = [at - over for at, _, told in stream.answers if told == "202" and at > over]
    enqueued = [at - over for at, _, told in stream.enqueued if told == "accepted" and at > over]
    return (posted[0], enqueued[0]) if posted and enqueued else None


def _answered_in_time(stream: Stream) -> None:
    assert {told for _, _, told in stream.answers} <= {"202", "503 5"}
    assert max(seconds for _, seconds, _ in stream.answers) < 1.3  # a second, and the threads of this test
    assert max(seconds for _, seconds, _ in stream.enqueued) < 2.3


def _all_written(day: Day, stream: Stream) -> float | None:
    """Now, when each registration has its result; each once."""
    ids = list(stream.accepted)
    if day.stack.counts().get("synced", 0) < len(ids) or not day.stack.rhythm.history(ORG, ids[-1]):
        return None
    return time.monotonic() if all(len(day.stack.rhythm.history(ORG, id)) == 1 for id in ids) else None
