"""A ledger of a million events against one of a thousand: commands, script time, the longest command."""

from collections.abc import Iterator
from typing import Final

from bench.line import Line
from bench.ours import Ours
from bench.payloads import sittings
from bench.runs import Run, all_effects, backlog, median, ratio
from bench.session import Session

_SMALL: Final = 1_000


def measure(session: Session) -> Iterator[Line]:
    """The same backlog on both, in turns."""
    sides = (session.filled("large", session.size.ledger), session.filled("small", _SMALL))
    for side in sides:
        session.pipeline(side)
        side.watch_commands()
    count = session.size.events // 5
    found: list[list[Run]] = [[], []]
    for _ in range(session.size.rounds):
        for runs, side in zip(found, sides, strict=True):
            runs.append(backlog(side, session.rhythm, sittings(count)))
    for side in sides:
        side.end()
    session.runs |= {"a large ledger": found[0], "a small ledger": found[1]}
    yield from _lines(session, found, sides)


def _lines(session: Session, found: list[list[Run]], sides: tuple[Ours, Ours]) -> Iterator[Line]:
    large, small = found
    against = f"{session.size.ledger:,} events against {_SMALL:,}"
    for what, of, budget in (
        ("Redis commands an event", lambda run: run.each(run.redis.commands), 1.02),
        ("script time an event, us", lambda run: run.each(run.redis.seconds) * 1e6, 1.25),
    ):
        ratios = ratio(large, small, lambda one, other, of=of: of(one) / of(other))  # type: ignore[misc]
        yield Line(
            f"{against}: {what}",
            median(large, of),
            median(small, of),
            ratios,
            at_most=budget,
            ours_effects=all_effects(large),
            other_effects=all_effects(small),
        )
    longest = [side.longest_command() for side in sides]
    yield Line(f"{against}: longest Redis command, ms", *longest, note=f"most time in {sides[0].dearest_commands()}")
