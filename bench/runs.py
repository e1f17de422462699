"""One run of a side: events that wait are let go, and written to Rhythm. What it took, what became of them."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from bench.measure import Effects, RedisCounts, Write, cpu_seconds, rate, wait, writes
from bench.payloads import Sitting
from bench.sides import Side
from sandbox.control import Sandbox

_LONGEST: Final = 300.0
#: How long a write may still come after its side has nothing left to do, before its event counts as lost.
_GRACE: Final = 5.0


class Rhythm(NamedTuple):
    """A stand-in, and its process id."""

    sandbox: Sandbox
    pid: int


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took. CPU is that of the side's processes and its Valkey."""

    events: int
    #: From the first write's answer to the last's.
    rate: float
    #: A second, from the beginning to the last write's answer: the ramp-up is in it.
    whole_rate: float
    cpu_ms: float
    valkey_cpu_ms: float
    calls: float
    fill: float
    #: CPU of the stand-in for each registration that a call names, in microseconds.
    stand_in_us: float
    redis: RedisCounts
    effects: Effects

    def each(self, count: float) -> float:
        """A count, an event."""
        return count / self.events


def backlog(side: Side, rhythm: Rhythm, given: Sequence[Sitting]) -> Run:
    """Load a backlog onto a side that is running and idle, and let it go."""
    rhythm.sandbox.seed(side.org, [one.seed for one in given])
    side.load(given)
    return observed(side, rhythm, given, side.go)


def observed(side: Side, rhythm: Rhythm, given: Sequence[Sitting], begin: Callable[[], object]) -> Run:
    """The run that `begin` starts; the registrations of `given` are there already."""
    count, before = len(given), rhythm.sandbox.counts()
    cpu, valkey, stand_in, redis = side.cpu(), side.valkey_cpu(), cpu_seconds([], [rhythm.pid]), side.counts()
    began = time.time()
    begin()
    _finish(side, rhythm, before["writes"] + count)
    taken, taken_by_valkey = side.cpu() - cpu, side.valkey_cpu() - valkey
    served = cpu_seconds([], [rhythm.pid]) - stand_in
    log = [one for one in rhythm.sandbox.requests(before["calls"]) if f"/{side.org}/" in one["path"]]
    done = writes(log)
    return Run(
        events=count,
        rate=rate(done),
        whole_rate=count / (done[-1].at - began),
        cpu_ms=taken * 1000 / count,
        valkey_cpu_ms=taken_by_valkey * 1000 / count,
        calls=len(log) / count,
        fill=sum(len(write.ids) for write in done) / len(done),
        stand_in_us=served * 1e6 / sum(max(1, len(one["ids"])) for one in log),
        redis=side.counts().since(redis),
        effects=effects(done, given),
    )


def effects(done: Sequence[Write], given: Sequence[Sitting]) -> Effects:
    """What became of these events."""
    return Effects.of(done, [one.registration for one in given])


def _finish(side: Side, rhythm: Rhythm, wanted: int) -> None:
    """Wait until the side has nothing left to do, twice in a row, and until its writes have come.

    A worker that takes a message notes it a moment later: in between there seems to be none. Writes that never come are
    lost events, which are counted.
    """
    calm = 0

    def done() -> bool:
        nonlocal calm
        calm = calm + 1 if side.drained() else 0
        return calm > 1

    wait(done, _LONGEST, "the end of the run")
    with suppress(RuntimeError):
        wait(lambda: rhythm.sandbox.counts()["writes"] >= wanted, _GRACE, "every write")


def median(runs: Sequence[Run], of: Callable[[Run], float]) -> float:
    """The median of a figure."""
    return statistics.median(of(run) for run in runs)


def ratio(ours: Sequence[Run], others: Sequence[Run], of: Callable[[Run, Run], float]) -> float:
    """The median of the pairs' ratios."""
    return statistics.median(of(one, other) for one, other in zip(ours, others, strict=True))


def all_effects(runs: Sequence[Run]) -> Effects:
    """Of all runs together."""
    return sum((run.effects for run in runs), Effects(0, 0))
