"""What people wait for at a million events, a tenth of them waiting for a person: whole commands, console pages."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from bench.line import Line
from bench.ours import Ours
from bench.session import Session
from bench.visits import console, pages, visited

_BUDGET, _AIM = 1, 0.3
_YESTERDAY: Final = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S")
_TOMORROW: Final = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S")
#: Each filter alone, some together; some find much, some nothing.
_LISTS: Final = (
    "held list",
    "held list --reason registration_ambiguous",
    "held list --source prov --reason writes_off",
    "held list --until 2020-01-01",
    "dead list",
    "dead list --reason rhythm_rejected --json",
    f"dead list --since {_YESTERDAY}",
    "events list",
    "events list --state held",
    "events list --state discarded",
    "events list --source drillster",
    f"events list --since {_TOMORROW}",
    "events list --until 2020-01-01",
    f"events list --since {_YESTERDAY} --reason unknown_exam",
    "events list --reason forgotten",
)
_REPLAY: Final = "replay --reason rhythm_rejected --limit 100 --yes --why bench"


def measure(session: Session) -> Iterator[Line]:
    """Seconds; of a command its own start is in them."""
    ours = session.filled("large", session.size.ledger)
    ours.have_waiting(session.size.ledger // 10)
    where = f"{session.size.ledger:,} events"
    ours.watch_commands()
    start = ours.command("--help")
    note = f"of it the start {start:.2f} s"
    yield _line(f"{where}: status, seconds", ours.command("status"), note)
    took = {listing: ours.command(*listing.split()) for listing in _LISTS}
    for group in ("held", "dead", "events"):
        worst = max((listing for listing in took if listing.startswith(group)), key=lambda listing: took[listing])
        yield _line(f"{where}: {group} list, the slowest filter, seconds", took[worst], f"`{worst}`; {note}")
    yield _line(f"{where}: replay --limit 100, seconds", ours.command(*_REPLAY.split()), note)
    longest, dearest = ours.longest_command(), ours.dearest_commands()
    yield Line(f"{where}: longest Redis command of these, ms", longest, note=f"most time in {dearest}")
    ours.have_strays(session.size.ledger // 100)
    yield from _console(ours, where)


def _console(ours: Ours, where: str) -> Iterator[Line]:
    """Of each kind of page the slowest, asked for over HTTP by a user who is signed in."""
    with console(ours) as browser:
        for kind, paths in pages(browser).items():
            visit = visited(browser, paths)
            note = f"of {len(paths)}: `{visit.path}`; the longest of five {visit.longest:.2f} s"
            yield _line(f"{where}: console, {kind}, seconds", visit.seconds, note)


def _line(figure: str, took: float | None, note: str) -> Line:
    return Line(figure, took, at_most=_BUDGET, aim=_AIM, note=note)
