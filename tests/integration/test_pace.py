"""How a pace is learned from 429s: the gate's own script, with the test's clock, against a Rhythm with a limit."""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tests.running import Valkey
from worker.ledger.client import script_text

_CLOCK = "redis.call('TIME')"
_OURS = "{ ARGV[#ARGV - 1], ARGV[#ARGV] }"


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    """A Valkey that does not wait for a disk: its time is the test's."""
    running = Valkey(appendonly="no").start()
    yield running
    running.close()


@pytest.fixture
def client(server: Valkey) -> Iterator["redis.Redis"]:
    """A client of it, empty."""
    with redis.Redis.from_url(server.url) as connected:
        connected.flushall()
        yield connected


class Rhythm:
    """A token bucket, full at first."""

    def __init__(self, rate: float, burst: int, retry_after: float | None) -> None:
        self.rate, self.burst, self.retry_after = rate, burst, retry_after
        self._level, self._at = float(burst), 0.0

    def call(self, at: float) -> float | None:
        """None: let through. Else how long to wait, 0 where it does not say."""
        self._level, self._at = min(self.burst, self._level + (at - self._at) * self.rate), at
        if self._level >= 1:
            self._level -= 1
            return None
        return 0 if self.retry_after is None else max(self.retry_after, math.ceil((1 - self._level) / self.rate))


class Run:
    """Some tasks that always have a next call, for `seconds`. When calls were let through, and when refused."""

    def __init__(self, client: "redis.Redis", rhythm: Rhythm, tasks: int, call: float) -> None:
        self._rhythm, self._call = rhythm, call
        text = script_text("gate")
        assert _CLOCK in text
        self._script = client.register_script(text.replace(_CLOCK, _OURS))
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count, self._chance = itertools.count(), random.Random(7)
        self.through: list[float] = []
        self.refused: list[float] = []
        for _ in range(tasks):
            self._later(self._chance.random() / 100, self._take, "take", 0)

    def until(self, seconds: float) -> "Run":
        while self._queue[0][0] < seconds:
            at, _, step, args = heapq.heappop(self._queue)
            step(at, *args)
        return self

    def share(self, begin: float, end: float) -> float:
        return sum(begin <= at < end for at in self.through) / (end - begin) / self._rhythm.rate

    def lessons(self, begin: float, end: float) -> int:
        """429s that did not come together."""
        found = [at for at in self.refused if begin <= at < end]
        return sum(later - earlier > 0.9 for earlier, later in zip([begin - 9, *found], found, strict=False))

    def _later(self, at: float, step: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._queue, (at, next(self._count), step, args))

    def _gate(self, at: float, *args: str | float) -> Any:
        return self._script(args=["acme", *args, int(1e9 + at), int(at % 1 * 1e6)])

    def _take(self, at: float, command: str, closings: int) -> None:
        waits, *told = self._gate(at, command, 0, 10_000, 30_000, 0, 1000 * self._call, closings)
        if waits == -1:  # put back: the sweep finds it within its pause
            self._later(at + told[0] / 1000 + 2 * self._chance.random() + 0.01, self._take, "take", 0)
        elif waits:
            self._later(at + waits / 1e6 + self._jitter(), self._take, "look", told[1])
        else:
            self._later(at + self._jitter(), self._arrive, told[0])

    def _arrive(self, at: float, probe: int) -> None:
        answer = self._rhythm.call(at)
        (self.through if answer is None else self.refused).append(at)
        took = self._jitter() if answer is not None else self._call * (0.8 + 0.4 * self._chance.random())
        self._later(at + took, self._answered, probe, answer)

    def _answered(self, at: float, probe: int, answer: float | None) -> None:
        if answer is not None:
            self._gate(at, "close", "rhythm_throttled", 1000 * answer, 2000, 60_000, self._chance.random(), 0)
        elif probe:
            self._gate(at, "open")
        self._later(at + 0.001, self._take, "take", 0)

    def _jitter(self) -> float:
        return 0.0003 + 0.001 * self._chance.random()


@pytest.mark.parametrize(
    ("rate", "burst", "retry_after", "tasks", "call"),
    [
        (0.5, 1, 1, 2, 0.05),
        (2, 1, 3, 1, 0.05),
        (5, 1, 1, 4, 0.5),
        (5, 30, 1, 4, 0.05),
        (20, 2, None, 4, 0.005),
    ],
)
def test_what_rhythm_allows_is_found_within_a_minute_and_kept(
    client: "redis.Redis", rate: float, burst: int, retry_after: float | None, tasks: int, call: float
) -> None:
    run = Run(client, Rhythm(rate, burst, retry_after), tasks, call).until(160)
    print(f"{run.share(0, 60):.2f} {run.share(60, 160):.2f} {run.lessons(0, 60)} {run.lessons(60, 160)}")
    assert run.share(60, 160) >= 0.8
    assert run.lessons(0, 60) <= 12
    assert run.lessons(60, 160) <= 6


def test_a_limit_that_is_lifted_is_forgotten_within_a_minute_and_one_that_sinks_is_found(client: "redis.Redis") -> None:
    rhythm = Rhythm(5, 2, 1)
    run = Run(client, rhythm, 3, 0.05).until(60)
    rhythm.rate = 20
    run.until(150)
    assert run.share(120, 150) >= 0.8
    rhythm.rate = 4
    run.until(240)
    assert run.share(180, 240) >= 0.8
