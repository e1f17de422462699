"""What the rows share: the light stand-in, sides that are started and warm, naive's best pool at each latency."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import sandbox.control
from bench import light
from bench.measure import wait
from bench.others import Naive, NaiveQuiet, Pool, installed
from bench.ours import PIPELINE, Ours
from bench.payloads import SMALL, sittings
from bench.runs import Rhythm, Run, backlog
from bench.sides import Side
from bench.sizes import Size

#: The pools that a user would try; naive's best is what we are measured against.
POOLS: Final = {
    0: (Pool("prefork", 2), Pool("prefork", 8), Pool("threads", 32)),
    50: (Pool("prefork", 2), Pool("prefork", 8), Pool("threads", 32), Pool("gevent", 100)),
}
_WARM: Final = 300
_S = TypeVar("_S", bound=Side)


class Session:
    """One run of the benchmark. Whoever opens the stack ends everything with it."""

    def __init__(self, stack: ExitStack, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        self.rhythm = Rhythm(*stack.enter_context(light.start()))
        self._stack = stack
        #: Every single run, for the JSON.
        self.runs: dict[str, list[Run]] = {}
        #: Naive's rate with each pool, by latency.
        self.pools: dict[int, dict[Pool, float]] = {}
        self._sides: dict[str, Any] = {}

    def side(self, kind: Callable[..., _S], name: str, *arguments: Any, rhythm: Rhythm | None = None) -> _S:
        """The side of this name, made when it is asked for first; its processes are not started."""
        if name not in self._sides:
            made = kind(self.folder, name, (rhythm or self.rhythm).sandbox.url, *arguments)
            self._sides[name] = made
            self._stack.callback(made.close)
        found: _S = self._sides[name]
        return found

    @cached_property
    def full(self) -> Rhythm:
        """The full stand-in, for what is counted and not timed."""
        return Rhythm(self._stack.enter_context(sandbox.control.start()), 0)

    def receivers(self, ours: Ours, naive: Naive) -> None:
        """Receivers beside the workers of both."""
        if "web" not in ours.running:
            ours.start_all("web")
        if "web" not in naive.running:
            naive.start_receiver("apply_async")
        ours.answers()
        naive.answers()

    def ours(self, name: str = "acme", *arguments: Any, rhythm: Rhythm | None = None) -> Ours:
        """Examrelay, its pipeline running, every child warm."""
        ours = self.side(Ours, name, *arguments, rhythm=rhythm)
        if not ours.running:
            self.pipeline(ours, rhythm)
        return ours

    def pipeline(self, ours: Ours, rhythm: Rhythm | None = None) -> None:
        """Start its pipeline, and have every child work once."""
        ours.start_all(*PIPELINE)
        self.warm(ours, rhythm)

    def warm(self, ours: Ours, rhythm: Rhythm | None = None) -> None:
        """Have every child work once."""
        backlog(ours, rhythm or self.rhythm, sittings(_WARM))
        for _ in range(16):
            ours.go()
        wait(ours.drained, 60, "the end of the warm-up")

    def filled(self, name: str, events: int) -> Ours:
        """Examrelay with so many synced events in its ledger; its processes are not started."""
        new = name not in self._sides
        ours = self.side(Ours, name)
        if new:
            ours.fill(events)
        return ours

    def naive(self, latency: int, kind: type[Naive] = Naive) -> Naive:
        """The naive pipeline, warm on its best pool at this latency."""
        return self.naive_on(self.best_pool(latency), kind)

    def naive_on(self, pool: Pool, kind: type[Naive] = Naive) -> Naive:
        """The same on this pool."""
        naive = self.side(kind, kind.__name__.lower())
        if naive.pool != pool:
            self._warm(naive, pool)
        return naive

    def quiet(self, latency: int) -> Naive:
        """The same without Celery's events."""
        return self.naive(latency, NaiveQuiet)

    def best_pool(self, latency: int) -> Pool:
        """Naive's fastest pool: each is warm, and its second run takes as long as the measured ones."""
        if latency not in self.pools:
            naive, found = self.side(Naive, "naive"), dict[Pool, float]()
            for pool in POOLS[latency]:
                if pool.kind == "gevent" and not installed("gevent"):
                    continue
                self._warm(naive, pool)
                self.latency(latency)
                first = backlog(naive, self.rhythm, sittings(4 * pool.size)).rate
                runs = [backlog(naive, self.rhythm, sittings(self._count(first))) for _ in range(2)]
                found[pool] = max(run.rate for run in runs)
                self.latency(0)
            self.pools[latency] = found
        found = self.pools[latency]
        return max(found, key=lambda pool: found[pool])

    def naive_count(self, latency: int) -> int:
        """As many events as keep the naive pipeline busy for a run."""
        return self._count(self.pools[latency][self.best_pool(latency)])

    def begin_anew(self) -> None:
        """After a failure: no side is used again as it was left."""
        for side in self._sides.values():
            side.close()
        self._sides.clear()
        self.latency(0)

    def latency(self, milliseconds: int) -> None:
        """How long Rhythm takes for each call, from now on."""
        self.rhythm.sandbox.options(latency_ms=milliseconds)

    def turns(
        self, latency: int, sides: Sequence[tuple[Side, int]], size: tuple[int, int, int] = SMALL
    ) -> list[list[Run]]:
        """Backlogs of so many events on each side, in turns: the runs of each."""
        self.latency(latency)
        found: list[list[Run]] = [[] for _ in sides]
        for _ in range(self.size.rounds):
            for runs, (side, count) in zip(found, sides, strict=True):
                runs.append(backlog(side, self.rhythm, sittings(count, size)))
        self.latency(0)
        return found

    def _warm(self, naive: Naive, pool: Pool) -> None:
        """Start its worker with this pool, and have every child work once."""
        naive.start_worker(pool)
        backlog(naive, self.rhythm, sittings(2 * pool.size + 8))

    def _count(self, rate: float) -> int:
        return max(20, round(rate * self.size.naive_seconds))
