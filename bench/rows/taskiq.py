"""Backlog of 3 KB at 0 ms a call, against the naive pipeline on taskiq with aiohttp, the fastest queue of Python's."""

from collections.abc import Iterator

from bench.line import Line
from bench.others import Taskiq, installed
from bench.payloads import sittings
from bench.runs import all_effects, backlog, median, ratio
from bench.session import Session

_FIGURE = "0 ms a call: written a second"
_BUDGET, _AIM = 3, 6


def measure(session: Session) -> Iterator[Line]:
    """In turns with ours."""
    if not (installed("taskiq_redis") and installed("aiohttp")):
        yield Line(_FIGURE, at_least=_BUDGET, aim=_AIM, note="taskiq is not installed: `make bench` installs it")
        return
    taskiq = session.side(Taskiq, "taskiq")
    taskiq.start_worker()
    backlog(taskiq, session.rhythm, sittings(50))
    runs, theirs = session.turns(0, [(session.ours(), session.size.events), (taskiq, session.size.events // 2)])
    taskiq.end()
    session.runs |= {"beside taskiq": runs, "taskiq": theirs}
    yield Line(
        _FIGURE,
        median(runs, lambda run: run.rate),
        median(theirs, lambda run: run.rate),
        ratio(runs, theirs, lambda one, other: one.rate / other.rate),
        at_least=_BUDGET,
        aim=_AIM,
        ours_effects=all_effects(runs),
        other_effects=all_effects(theirs),
        note="taskiq on Redis streams, two processes, 50 tasks at once in each",
    )
