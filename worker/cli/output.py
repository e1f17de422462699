"""How commands answer: tables for people, tab-separated lines when piped, JSON when asked for; and how they end.

rich is imported where it draws: a command in a pipe starts a tenth of a second sooner without it.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

#: Exit codes of every command: it holds; it does not; usage or configuration; it could not be checked (Redis, Rhythm
#: or the receiver does not answer).
HOLDS, DOES_NOT, USAGE, UNCHECKED = 0, 1, 2, 3
#: The styles of a table's words on a terminal.
_STYLES: Final = {
    "synced": "green",
    "ok": "green",
    "open": "green",
    "held": "yellow",
    "unknown": "yellow",
    "probing": "yellow",
    "dead": "red",
    "FAILS": "red",
    "closed": "red",
    "duplicate": "dim",
    "superseded": "dim",
    "ignored": "dim",
    "discarded": "dim",
}
_GAP: Final = 2
#: Least width of the column that wraps.
_LEAST: Final = 20
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
    return "" if value is None else str(value)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], wraps: str = "") -> None:
    """Rows under their columns. None is an empty cell.

    On a terminal no cell is cut short, so that an id can be copied: columns for which there is no room are left out
    from the right, and the column that `wraps` takes the room that is left.
    """
    cells = [[_cell(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(line) + "\n" for line in [list(columns), *cells])
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns[: _fitting(columns, cells, wraps, console.width)]:
        table.add_column(column, no_wrap=column != wraps, overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in line[: len(table.columns)]))
    console.print(table)


def _fitting(columns: Sequence[str], cells: list[list[str]], wraps: str, width: int) -> int:
    """How many columns from the left there is room for: at least one."""
    for place, column in enumerate(columns):
        natural = max(len(column), *(len(line[place]) for line in cells), 0) if cells else len(column)
        width -= (min(natural, _LEAST) if column == wraps else natural) + _GAP
        if width + _GAP < 0 and place:
            return place
    return len(columns)


def show_line(cells: Sequence[object]) -> None:
    """One row of a table that has no end."""
    shown = [_cell(cell) for cell in cells]
    wide = sys.stdout.isatty()
    say("  ".join(cell.ljust(_FOLLOWED_WIDTH) for cell in shown) if wide else "\t".join(shown))


def say(line: str) -> None:
    """One line to stdout."""
    sys.stdout.write(line + "\n")


def suggest(line: str) -> None:
    """What to type next, for people: nothing in a pipe."""
    if sys.stdout.isatty():
        sys.stdout.write(line + "\n")


def say_malformed(count: int) -> None:
    """How many queue entries are not Celery messages, if any, and what to type next."""
    if count:
        say(f"\n{count} queue entries are not Celery messages: examrelay strays show malformed")


def complain(line: str) -> None:
    """One line to stderr."""
    sys.stderr.write(f"examrelay: {line}\n")


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
