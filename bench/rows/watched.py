"""What it costs to be watched: by Celery's events (`-E`), which Flower lives on, log lines, traces, and Prometheus."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from operator import attrgetter
from typing import Final

import requests

from bench.line import Line
from bench.ours import PIPELINE, Ours, Unwatched
from bench.rows import whole_job
from bench.runs import Run, all_effects, median, ratio
from bench.session import Session
from tests.acceptance.watching import collecting

_SCRAPE_SECONDS: Final = 1.0
_RATE: Final = attrgetter("rate")
_WHOLE: Final = attrgetter("whole_rate")


def measure(session: Session) -> Iterator[Line]:
    """The same backlog, in turns. No budget: all can be switched off."""
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
    yield from _traces(session)
    yield from _scrapes(session)


def _traces(session: Session) -> Iterator[Line]:
    """Sentry gets every trace, or none; over HTTP, where a trace begins. The sink's own CPU is not counted."""
    with collecting() as sink:
        sides = []
        for name, rate in (("every-trace", "1.0"), ("no-trace", "0")):
            side = session.side(Ours, name)
            side.environ |= {"SENTRY_DSN": sink.dsn, "SENTRY_TRACES_SAMPLE_RATE": rate}
            _begin(session, side)
            sides.append(side)
        every, none = list[Run](), list[Run]()
        for _ in range(session.size.rounds):
            for runs, side in zip((every, none), sides, strict=True):
                runs.append(whole_job.run(session, side, session.size.whole_events))
        for side in sides:
            side.end()
    session.runs |= {"every trace": every, "no trace": none}
    yield from _lines("every trace against none, whole job", every, none, _WHOLE)


def _scrapes(session: Session) -> Iterator[Line]:
    """The same processes, scraped and not."""
    ours = session.filled("scraped", session.size.ledger)
    _begin(session, ours)
    scraped, alone, took = list[Run](), list[Run](), list[float]()
    for _ in range(session.size.rounds):
        for runs, watch in ((scraped, _scraping(ours, took)), (alone, nullcontext())):
            with watch:
                runs.append(whole_job.run(session, ours, session.size.whole_events))
    ours.end()
    session.runs |= {"scraped every second": scraped, "not scraped": alone}
    yield from _lines(
        f"/metrics read every second against never, {session.size.ledger:,} events", scraped, alone, _WHOLE
    )
    yield Line("one reading of /metrics under load, ms", 1000 * sum(took) / len(took), note=f"{len(took)} readings")


def _begin(session: Session, side: Ours) -> None:
    side.start_all("web", *PIPELINE)
    side.answers()
    session.warm(side)


@contextmanager
def _scraping(ours: Ours, took: list[float]) -> Iterator[None]:
    """Read its metrics every second, as Prometheus does every 15 or more."""
    over = threading.Event()

    def read() -> None:
        with requests.Session() as client:
            client.trust_env = False
            while not over.wait(_SCRAPE_SECONDS):
                answer = client.get(f"http://127.0.0.1:{ours.port}/metrics", timeout=30)
                answer.raise_for_status()
                took.append(answer.elapsed.total_seconds())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()


def _lines(what: str, one: list[Run], other: list[Run], rate: Callable[[Run], float] = _RATE) -> Iterator[Line]:
    cpu = [median(runs, lambda run: run.cpu_ms) for runs in (one, other)]
    yield Line(f"CPU ms an event, {what}", *cpu, ratio(one, other, lambda a, b: a.cpu_ms / b.cpu_ms))
    rates = [median(runs, rate) for runs in (one, other)]
    effects = {"ours_effects": all_effects(one), "other_effects": all_effects(other)}
    yield Line(f"written a second, {what}", *rates, ratio(one, other, lambda a, b: rate(a) / rate(b)), **effects)
