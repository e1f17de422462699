"""The whole job: from the first HTTP request to Rhythm's last answer, 3 KB, at 0 and 50 ms a call."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from bench.line import Line
from bench.load import deliver
from bench.payloads import sittings
from bench.runs import Run, all_effects, median, observed, ratio
from bench.session import Session
from bench.sides import Side

_RATE: Final = {0: (8, 12), 50: (6, 10)}


def measure(session: Session) -> Iterator[Line]:
    """In turns; receivers run beside the workers, and the load is a process of its own beside both."""
    for latency, (budget, aim) in _RATE.items():
        ours, naive = session.ours(), session.naive(latency)
        session.receivers(ours, naive)
        session.latency(latency)
        mine, theirs = list[Run](), list[Run]()
        for _ in range(session.size.rounds):
            mine.append(run(session, ours, session.size.whole_events))
            theirs.append(run(session, naive, session.naive_count(latency)))
        session.latency(0)
        session.runs |= {f"whole job {latency}": mine, f"naive's whole job {latency}": theirs}
        yield from _lines(f"{latency} ms a call", mine, theirs, budget, aim, str(session.best_pool(latency)))
        if latency == 0:
            commands = median(mine, lambda run: run.each(run.redis.commands))
            yield Line("Redis commands an event, receiver included", commands, at_most=30, aim=20)


def run(session: Session, side: Side, count: int) -> Run:
    """So many events over HTTP, to the last write's answer."""
    given = sittings(count)
    session.rhythm.sandbox.seed(side.org, [one.seed for one in given])
    return observed(side, session.rhythm, given, partial(deliver, side.port, given))


def _lines(where: str, ours: list[Run], naive: list[Run], budget: float, aim: float, pool: str) -> Iterator[Line]:
    rates = [median(runs, lambda run: run.whole_rate) for runs in (ours, naive)]
    yield Line(
        f"{where}: results a second",
        *rates,
        ratio(ours, naive, lambda one, other: one.whole_rate / other.whole_rate),
        at_least=budget,
        aim=aim,
        ours_effects=all_effects(ours),
        other_effects=all_effects(naive),
        note=f"naive: {pool} and an apply_async receiver",
    )
    cpu = [median(runs, lambda run: run.cpu_ms) for runs in (ours, naive)]
    less = ratio(ours, naive, lambda one, other: other.cpu_ms / one.cpu_ms)
    note = "receiver, workers, beat, Valkey"
    yield Line(f"{where}: CPU ms an event", *cpu, less, at_least=8, aim=12, note=note)
