"""Backlog to Rhythm: how fast what waits is written, what it costs, at 0 and 50 ms a call, 3 KB and 40 KB."""

from collections.abc import Iterator
from typing import Final

from bench.line import Line
from bench.payloads import BIG
from bench.runs import Run, all_effects, median, ratio
from bench.session import Session

_RATE: Final = {0: (12, 20), 50: (12, 16)}
_BIG_RATE: Final = (12, 16)


def measure(session: Session) -> Iterator[Line]:
    """3 KB, against naive's best pool; naive without `-E` beside."""
    for latency, (budget, aim) in _RATE.items():
        count = session.size.events
        sides = (session.ours(), session.naive(latency), session.quiet(latency))
        naive_count = session.naive_count(latency)
        ours, naive, quiet = session.turns(
            latency, [(side, naive_count if place else count) for place, side in enumerate(sides)]
        )
        session.runs |= {f"backlog {latency}": ours, f"naive {latency}": naive, f"naive without -E {latency}": quiet}
        where = f"{latency} ms a call"
        pool = str(session.best_pool(latency))
        yield _against(
            f"{where}: written a second", ours, naive, budget, aim, f"naive: {pool}; {_pools(session, latency)}"
        )
        yield _against(f"{where}: against naive without -E", ours, quiet, note="no budget: Flower needs -E")
        yield _cpu(where, ours, naive)
        yield Line(f"{where}: registrations a write", median(ours, lambda run: run.fill))
        yield _stand_in(where, ours, naive)
        if latency == 0:
            yield from counts(ours, 0.1)


def measure_40kb(session: Session) -> Iterator[Line]:
    """40 KB, 0 ms."""
    side = session.naive(0)
    half = session.naive_count(0) // 2  # its rate at 40 KB is less than half of that at 3 KB
    ours, naive = session.turns(0, [(session.ours(), session.size.big_events), (side, half)], BIG)
    session.runs |= {"backlog 40 KB": ours, "naive 40 KB": naive}
    pool = session.best_pool(0)
    yield _against("0 ms a call: written a second", ours, naive, *_BIG_RATE, f"naive: {pool}")
    yield _cpu("0 ms a call", ours, naive)
    yield Line(
        "Redis round trips an event",
        median(ours, lambda run: run.each(run.redis.reads)),
        at_most=0.15,
        note="a read of more than 16 KB counts once for each 16 KB",
    )


def counts(ours: list[Run], round_trips: float) -> Iterator[Line]:
    """What has no noise: calls, hints, round trips."""
    calls, hints = median(ours, lambda run: run.calls), median(ours, lambda run: run.each(run.redis.messages))
    yield Line("Rhythm calls an event, by id", calls, at_most=0.025, aim=0.02)
    yield Line("hints an event", hints, at_most=0.01, note="the sweep's messages included")
    yield Line("Redis round trips an event", median(ours, lambda run: run.each(run.redis.reads)), at_most=round_trips)
    commands = median(ours, lambda run: run.each(run.redis.commands))
    yield Line("Redis commands an event, receiver left out", commands, note="with it: whole_job")


def _against(
    figure: str,
    ours: list[Run],
    others: list[Run],
    budget: float | None = None,
    aim: float | None = None,
    note: str = "",
) -> Line:
    best = max(run.rate for run in ours) / max(run.rate for run in others)
    return Line(
        figure,
        median(ours, lambda run: run.rate),
        median(others, lambda run: run.rate),
        ratio(ours, others, lambda one, other: one.rate / other.rate),
        at_least=budget,
        aim=aim,
        ours_effects=all_effects(ours),
        other_effects=all_effects(others),
        note=f"best against best {best:.1f} x; {note}",
    )


def _cpu(where: str, ours: list[Run], naive: list[Run]) -> Line:
    less = ratio(ours, naive, lambda one, other: other.cpu_ms / one.cpu_ms)
    valkey = median(ours, lambda run: run.valkey_cpu_ms)
    cpu = [median(runs, lambda run: run.cpu_ms) for runs in (ours, naive)]
    return Line(f"{where}: CPU ms an event", *cpu, less, note=f"without a receiver; of ours Valkey {valkey:.2f}")


def _stand_in(where: str, ours: list[Run], naive: list[Run]) -> Line:
    figures = [median(runs, lambda run: run.stand_in_us) for runs in (ours, naive)]
    return Line(f"{where}: stand-in's CPU, us a call's item", *figures, at_most=30, note="the light stand-in")


def _pools(session: Session, latency: int) -> str:
    return ", ".join(f"{pool} {rate:.0f}" for pool, rate in session.pools[latency].items())
