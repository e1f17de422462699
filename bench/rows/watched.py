"""What it costs to be watched: Celery's events (`-E`), which Flower lives on, and a log line for each result."""

from collections.abc import Iterator

from bench.line import Line
from bench.ours import Ours, Unwatched
from bench.runs import Run, all_effects, median, ratio
from bench.session import Session


def measure(session: Session) -> Iterator[Line]:
    """The same backlog, in turns. No budget: both can be switched off."""
    without, told = session.side(Unwatched, "without-E"), session.side(Ours, "debug")
    told.environ["EXAMRELAY_LOG_LEVEL"] = "debug"
    for side in (without, told):
        session.pipeline(side)
    count = session.size.events // 2
    ours, quiet, lines = session.turns(0, [(session.ours(), count), (without, count), (told, count)])
    session.runs |= {"watched": ours, "without -E": quiet, "at the level debug": lines}
    yield from _lines("-E against none", ours, quiet)
    yield from _lines("log level debug against info", lines, ours)
    without.end()
    told.end()


def _lines(what: str, one: list[Run], other: list[Run]) -> Iterator[Line]:
    cpu = [median(runs, lambda run: run.cpu_ms) for runs in (one, other)]
    yield Line(f"CPU ms an event, {what}", *cpu, ratio(one, other, lambda a, b: a.cpu_ms / b.cpu_ms))
    rates = [median(runs, lambda run: run.rate) for runs in (one, other)]
    effects = {"ours_effects": all_effects(one), "other_effects": all_effects(other)}
    yield Line(f"written a second, {what}", *rates, ratio(one, other, lambda a, b: a.rate / b.rate), **effects)
