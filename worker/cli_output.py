"""How commands answer: tables for people, tab-separated lines when piped, JSON when asked for."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table


def show_json(what: Any) -> None:
    """One JSON document. Times are ISO 8601."""
    sys.stdout.write(json.dumps(what, indent=2, default=_as_text) + "\n")


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Rows under their columns. None shows as nothing."""
    cells = [["" if cell is None else _as_text(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(line) + "\n" for line in [list(columns), *cells])
        return
    table = Table(*columns, title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for line in cells:
        table.add_row(*line)
    Console(highlight=False, markup=False).print(table)


def say(line: str) -> None:
    """One line to stdout."""
    sys.stdout.write(line + "\n")


def complain(line: str) -> None:
    """One line to stderr."""
    sys.stderr.write(f"examrelay: {line}\n")
