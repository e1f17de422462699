"""How the pages say things: reasons in plain words, times, and text that cannot deceive the reader."""

import tomllib
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Final

from markupsafe import Markup

from schemas.event import EventState
from worker.harmless import cell, harmless

#: A state's shape beside its word, so that colour is not all that tells it.
SHAPES: Final = {
    EventState.RECEIVED: "○",
    EventState.READY: "◔",
    EventState.HELD: "◆",
    EventState.DEAD: "✕",
    EventState.SYNCED: "●",
}
STATES: Final = {
    EventState.RECEIVED: "recorded, not read yet",
    EventState.READY: "waits for its turn in Rhythm",
    EventState.HELD: "waits for a decision",
    EventState.DEAD: "cannot go through as it is",
    EventState.SYNCED: "Rhythm says it",
    EventState.DUPLICATE: "the same result as another event's",
    EventState.SUPERSEDED: "a newer result of this sitting is known",
    EventState.IGNORED: "not a result",
    EventState.DISCARDED: "set aside",
}
_UNITS: Final = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


@cache
def reasons() -> dict[str, dict[str, str]]:
    """For each reason: `title`, the `case`, and what to `do`, as the people say it who decide."""
    return tomllib.loads((files("worker.console") / "reasons.toml").read_text())


def shown(value: object) -> object:
    """What a template shows, with nothing hidden in it."""
    if isinstance(value, Markup):  # from a macro: its own values have been through here
        return value
    if value is None:
        return ""
    return harmless(str(value), "\n\t")


def span(length: timedelta | float | None) -> str:
    """A length of time in its largest unit: `3 hours`."""
    if length is None:
        return ""
    seconds = length.total_seconds() if isinstance(length, timedelta) else float(length)
    for size, unit in _UNITS:
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return "a moment"


def since(at: datetime, now: datetime) -> str:
    """`3 hours ago`, `in 2 minutes`."""
    return f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"


def moment(at: datetime) -> str:
    """As it stands where no script runs: UTC, and it says so."""
    return f"{at.astimezone(UTC):%d %b %Y %H:%M:%S} UTC"


def clock(at: datetime) -> str:
    """A moment of today, in a sentence."""
    return f"{at.astimezone(UTC):%H:%M} UTC"


def plain(value: Any) -> str:
    """A value of a registration, as people read it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    at = value if isinstance(value, datetime) else _instant(value)
    if at is None:
        return cell(str(value))
    return f"{at:%d %b %Y}" if at.time() == time() else moment(at)


def _instant(value: Any) -> datetime | None:
    """The instant that a text says, as Rhythm writes one."""
    with suppress(ValueError):
        return datetime.fromisoformat(value) if isinstance(value, str) and value[4:5] == "-" else None
    return None


def sentence(words: str) -> str:
    """As a sentence of its own."""
    begin = words if "@" in words.partition(" ")[0] else words[:1].upper() + words[1:]  # a process keeps its name
    return begin if words.endswith((".", "?")) else f"{begin}."


def several(count: int, one: str, many: str = "") -> str:
    """`1 result`, `1,204 results`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
