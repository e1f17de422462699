"""Backlog to Rhythm: how fast what waits is written, and what it costs, ours and naive in turns."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.machines import ORG, Naive, Ours
from bench.measure import RedisCounts, Write, rate, writes
from bench.payloads import Sitting, sittings
from sandbox.control import Sandbox
from tests.running import wait_until

#: The pools that a user would try; the best is what we are measured against.
POOLS: Final = (("prefork", 2), ("prefork", 8), ("threads", 32))
EVENTS: Final = 5_000
#: Naive's events by latency: enough for a second or two.
NAIVE_EVENTS: Final = {0: 600, 50: 400}
_TRIAL: Final = {0: 300, 50: 100}
_WARM: Final = 300
_LONGEST: Final = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    """One backlog, written."""

    events: int
    #: From the first write's answer to the last's.
    rate: float
    #: From the hint, or the first message, to the last write's answer.
    seconds: float
    cpu_ms: float
    calls: float
    fill: float
    redis: RedisCounts
    valkey_cpu_ms: float

    def each(self, count: float) -> float:
        """A count, an event."""
        return count / self.events


@dataclass(frozen=True, slots=True)
class Pairs:
    """Runs of both sides in turns, at one latency."""

    ours: list[Run]
    naive: list[Run]
    pool: str

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(ours.rate / naive.rate for ours, naive in zip(self.ours, self.naive, strict=True))

    @property
    def best(self) -> float:
        """The ratio of each side's best run: what else the machine does only ever slows one down."""
        return max(run.rate for run in self.ours) / max(run.rate for run in self.naive)


def run(side: Ours | Naive, rhythm: Sandbox, count: int) -> Run:
    """Load a backlog onto a side that is running and idle, and let it go. Fails unless each is written once."""
    given = sittings(count)
    rhythm.seed(ORG, [one.seed for one in given])
    side.load(given)
    if isinstance(side, Ours) and side.count("received") != count:
        raise RuntimeError("a late hint found the backlog before it was whole")
    before, cpu, redis = rhythm.counts(), side.cpu(), side.counts()
    valkey = side.valkey_cpu()
    began = time.time()
    side.go()
    done = _written(rhythm, before, given)
    _settled(side)
    calls = rhythm.counts()["calls"] - before["calls"]
    return Run(
        events=count,
        rate=rate(done),
        seconds=done[-1].at - began,
        cpu_ms=(side.cpu() - cpu) * 1000 / count,
        calls=calls / count,
        fill=count / len(done),
        redis=side.counts().since(redis),
        valkey_cpu_ms=(side.valkey_cpu() - valkey) * 1000 / count,
    )


def _written(rhythm: Sandbox, before: dict[str, int], given: Sequence[Sitting]) -> list[Write]:
    """The writes of all of `given`, once they are made."""
    wanted = before["writes"] + len(given)
    wait_until(lambda: rhythm.counts()["writes"] >= wanted, _LONGEST, f"{len(given)} writes")
    done = writes(rhythm.requests(before["calls"]))
    named = [id for write in done for id in write.ids]
    if sorted(named) != sorted(one.registration for one in given):
        raise RuntimeError(f"{len(named)} registrations were written, {len(given)} were to be")
    return done


def _settled(side: Ours | Naive) -> None:
    """Wait until the side has finished with its last event and message: a late hint would claim the next backlog."""
    if isinstance(side, Ours):
        wait_until(lambda: not side.unfinished(), 30, "every event synced")
    wait_until(lambda: not side.messages(), 30, "every message acknowledged")


def warm_ours(ours: Ours, rhythm: Sandbox) -> None:
    """Start its worker and all that is beside it, and have every child work once."""
    ours.start_all("worker", "sweeper", "beat")
    run(ours, rhythm, _WARM)
    for _ in range(16):
        ours.go()
    _settled(ours)


def warm_naive(naive: Naive, rhythm: Sandbox, pool: tuple[str, int]) -> None:
    """Start its worker with this pool, and have every child work once."""
    if "worker" in naive.running:
        naive.end("worker")
    naive.start_worker(*pool)
    run(naive, rhythm, 4 * pool[1] + 8)


def best_pools(naive: Naive, rhythm: Sandbox) -> dict[int, tuple[str, int]]:
    """Naive's fastest pool at each latency."""
    rates: dict[int, dict[tuple[str, int], float]] = {latency: {} for latency in _TRIAL}
    for pool in POOLS:
        warm_naive(naive, rhythm, pool)
        for latency, count in _TRIAL.items():
            rhythm.options(latency_ms=latency)
            rates[latency][pool] = run(naive, rhythm, count).rate
        rhythm.options(latency_ms=0)
    return {latency: max(found, key=lambda pool: found[pool]) for latency, found in rates.items()}


def pairs(ours: Ours, naive: Naive, rhythm: Sandbox, pool: tuple[str, int], latency: int, number: int) -> Pairs:
    """Both sides in turns, naive's worker already warm on `pool`."""
    rhythm.options(latency_ms=latency)
    found = Pairs([], [], f"{pool[0]} {pool[1]}")
    for _ in range(number):
        found.ours.append(run(ours, rhythm, EVENTS))
        found.naive.append(run(naive, rhythm, NAIVE_EVENTS[latency]))
    rhythm.options(latency_ms=0)
    return found
