"""How commands answer: tables for people, tab-separated lines when piped, JSON when asked for; and how they end.

rich is imported where it draws: a command in a pipe starts a tenth of a second sooner without it.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from shutil import get_terminal_size
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

from worker.harmless import cell, harmless

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.text import Text

#: Exit codes of every command: it holds; it does not; usage or configuration; it could not be checked (Redis, Rhythm
#: or the receiver does not answer).
HOLDS, DOES_NOT, USAGE, UNCHECKED = 0, 1, 2, 3
#: The styles of a table's words on a terminal.
_STYLES: Final = {
    **dict.fromkeys(("synced", "ok", "open"), "green"),
    **dict.fromkeys(("held", "unknown", "probing"), "yellow"),
    **dict.fromkeys(("dead", "FAILS", "closed"), "red"),
    **dict.fromkeys(("duplicate", "superseded", "ignored", "discarded"), "dim"),
}
_GAP: Final = 2
_FOLLOWED_WIDTH: Final = 12


def show_json(what: Any) -> None:
    """One JSON document. Times are ISO 8601."""
    sys.stdout.write(json.dumps(what, indent=2, default=_as_text) + "\n")


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _cell(value: object) -> str:
    """As tables show it: times to the second, in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return "" if value is None else cell(str(value)) if isinstance(value, str) else str(value)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their columns. None is an empty cell.

    On a terminal nothing is cut short or left out: what does not fit beside the first columns follows below its row,
    with the names of its columns.
    """
    cells = [[_cell(one) for one in row] for row in rows]
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(line) + "\n" for line in [list(columns), *cells])
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    ends = list(accumulate(width + _GAP for width in widths))
    beside = max(1, sum(end - _GAP <= console.width for end in ends))
    console.print(_line(columns[:beside], widths), style="bold")
    for line in cells:
        console.print(_line(line[:beside], widths))
        more = " · ".join(f"{name} {cell}" for name, cell in zip(columns[beside:], line[beside:], strict=True) if cell)
        _below(more, console.width)


def _line(cells: Sequence[str], widths: Sequence[int]) -> "Text":
    from rich.text import Text

    line = Text()
    for word, width in zip(cells, widths, strict=False):
        line.append(word, _STYLES.get(word, "")).append(" " * (width - len(word) + _GAP))
    line.rstrip()
    return line


def show_fields(fields: Mapping[str, object]) -> None:
    """A line for each field that has a value; a long one goes on below."""
    shown = {name: cell for name, value in fields.items() if (cell := _cell(value))}
    if not sys.stdout.isatty():
        show_table(["field", "value"], shown.items())
        return
    width = max(map(len, shown)) + _GAP
    for name, cell in shown.items():
        _below(f"{name.ljust(width)}{cell}", get_terminal_size().columns, indent="", hanging=" " * width)


def _below(words: str, width: int, indent: str = "    ", hanging: str = "    ") -> None:
    """Words between spaces stay whole, so that an id can be copied."""
    wrapper = TextWrapper(width, indent, hanging, break_long_words=False, break_on_hyphens=False)
    sys.stdout.writelines(line + "\n" for line in wrapper.wrap(words))


def show_line(cells: Sequence[object]) -> None:
    """One row of a table that has no end."""
    shown = [_cell(cell) for cell in cells]
    wide = sys.stdout.isatty()
    say("  ".join(cell.ljust(_FOLLOWED_WIDTH) for cell in shown) if wide else "\t".join(shown))


def say(line: str) -> None:
    """Lines to stdout; cells in them stand between tabs."""
    sys.stdout.write(harmless(line, "\n\t") + "\n")


def suggest(line: str) -> None:
    """What to type next, for people: nothing in a pipe."""
    if sys.stdout.isatty():
        say(line)


def remark(line: str) -> None:
    """How the command understood a person, on stderr: nothing in a pipe."""
    if sys.stdout.isatty():
        sys.stderr.write(harmless(line, "\n") + "\n")


def say_malformed(count: int) -> None:
    """How many queue entries are not Celery messages, if any, and what to type next."""
    if count:
        say(f"\n{count} queue entries are not Celery messages: examrelay strays show malformed")


def complain(line: str) -> None:
    """One line to stderr."""
    sys.stderr.write("examrelay: " + harmless(line, "\n") + "\n")


def end(holds: bool) -> NoReturn:
    """End the command with 0 or 1."""
    raise typer.Exit(HOLDS if holds else DOES_NOT)


def progress() -> "Progress":
    """Bars on a terminal, on stderr; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
