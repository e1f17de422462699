"""Valkey's CPU an event under mimalloc, as the embedded server runs, and under glibc's malloc: the reason for it."""

from collections.abc import Iterator

from bench.line import Line
from bench.ours import Ours
from bench.runs import Run, median, ratio
from bench.session import Session
from worker.local.valkey import allocator


def measure(session: Session) -> Iterator[Line]:
    """The same backlog on both, in turns. No budget: it is about the server, not about us."""
    if not allocator():
        yield Line("Valkey's CPU us an event, mimalloc against glibc", note="not measured: mimalloc is not installed")
        return
    glibc = session.side(Ours, "glibc")
    glibc.on_glibc()
    session.pipeline(glibc)
    count = session.size.events // 2
    mimalloc, others = session.turns(0, [(session.ours(), count), (glibc, count)])
    glibc.end()
    session.runs |= {"on mimalloc": mimalloc, "on glibc": others}
    yield _line("Valkey's CPU us an event, mimalloc against glibc", mimalloc, others, "valkey_cpu_ms")
    yield _line("all CPU us an event, mimalloc against glibc", mimalloc, others, "cpu_ms")


def _line(figure: str, mimalloc: list[Run], glibc: list[Run], name: str) -> Line:
    def of(run: Run) -> float:
        return float(getattr(run, name))

    figures = [median(runs, of) * 1000 for runs in (mimalloc, glibc)]
    return Line(figure, *figures, ratio(mimalloc, glibc, lambda one, other: of(one) / of(other)))
