"""Backlog of 3 KB at 0 ms a call, against Celery's own no-op on the same pool: the least that a task an event costs."""

import statistics
import time
from collections.abc import Iterator

from bench.line import Line
from bench.others import OURS, Noop
from bench.payloads import sittings
from bench.runs import all_effects, backlog, median
from bench.session import Session
from bench.sides import Side


def measure(session: Session) -> Iterator[Line]:
    """In turns with ours; `-E` on both sides."""
    ours, noop = session.ours(), session.side(Noop, "noop")
    noop.start_worker(OURS)
    _rate(noop, 20 * OURS.size)
    runs, rates = [], []
    for _ in range(session.size.rounds):
        runs.append(backlog(ours, session.rhythm, sittings(session.size.events)))
        rates.append(_rate(noop, session.size.events // 2))
    noop.end()
    session.runs["beside the no-op"] = runs
    yield Line(
        "0 ms a call: written a second",
        median(runs, lambda run: run.rate),
        statistics.median(rates),
        statistics.median(run.rate / rate for run, rate in zip(runs, rates, strict=True)),
        at_least=6,
        aim=10,
        ours_effects=all_effects(runs),
        note=f"Celery's no-op, {OURS}, -E",
    )


def _rate(side: Side, count: int) -> float:
    """Messages a second, from the first twentieth done until none is left."""
    side.load(sittings(count))
    side.go()
    first: tuple[float, int] | None = None
    while left := side.messages():
        if first is None and left <= 0.95 * count:
            first = (time.monotonic(), left)
        time.sleep(0.01)
    if first is None:
        raise RuntimeError("it was too fast to be measured")
    return first[1] / (time.monotonic() - first[0])
