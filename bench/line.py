"""One figure of the benchmark, held against its budget and aim; all of them as a table, or JSON.

A budget stands beside the figure, in the row's module. What could not be measured is a line, too, and says why.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measure import Effects

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Line:
    """`value`, what budget and aim are about, is the ratio where there is one, else ours."""

    figure: str
    ours: float | None = None
    other: float | None = None
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None
    #: Of our events and the other side's: None where no event is counted.
    ours_effects: Effects | None = None
    other_effects: Effects | None = None
    note: str = ""

    @property
    def value(self) -> float | None:
        """What is held against budget and aim; None: it could not be measured."""
        return self.ours if self.ratio is None else self.ratio

    @property
    def sign(self) -> str:
        """Which way the budget goes; empty without one."""
        return ">=" if self.at_least is not None else "<=" if self.at_most is not None else ""

    @property
    def bound(self) -> float | None:
        """The budget."""
        return self.at_most if self.at_least is None else self.at_least

    def verdict(self, bound: float | None) -> str:
        """`met` or `missed`; empty without a bound. Lost or doubled events of ours miss every bound."""
        if bound is None or not self.sign:
            return ""
        if self.value is None:
            return "not measured"
        harmed = self.ours_effects not in (None, Effects(0, 0))
        near = self.value >= bound if self.sign == ">=" else self.value <= bound
        return "met" if near and not harmed else "missed"

    @property
    def missed(self) -> bool:
        """Whether the budget is missed, or could not be measured."""
        return self.verdict(self.bound) in ("missed", "not measured")


def as_json(measured: dict[str, Sequence[Line]], about: dict[str, Any]) -> str:
    """Every line with its verdicts, by row; `about`: when, where, and every single run."""
    rows = {
        name: [asdict(one) | {"budget": one.verdict(one.bound), "aimed": one.verdict(one.aim)} for one in lines]
        for name, lines in measured.items()
    }
    return json.dumps({"at": _now(), **about, "rows": rows}, indent=1, default=str)


def keep(text: str) -> Path:
    """Write a run's JSON to a file of its own."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{_now().replace(':', '')}.json"
    path.write_text(text)
    return path


def show(measured: dict[str, Sequence[Line]]) -> None:
    """Print the table."""
    table = Table("row", "figure")
    for name in ("ours", "other", "ratio"):
        table.add_column(name, justify="right")
    for name in ("budget", "aim", "lost, doubled", "note"):
        table.add_column(name)
    for row, lines in measured.items():
        for place, one in enumerate(lines):
            numbers = (_told(one.ours), _told(one.other), _told(one.ratio, " x"))
            bounds = (_bound(one, one.bound), _bound(one, one.aim))
            table.add_row("" if place else row, one.figure, *numbers, *bounds, _effects(one), one.note)
    Console(width=None if Console().is_terminal else 200).print(table)


def _bound(line: Line, bound: float | None) -> str:
    if bound is None or not line.sign:
        return ""
    verdict = line.verdict(bound)
    told = f"{line.sign} {bound:g}{'' if line.ratio is None else ' x'} {verdict}"
    return told if verdict == "met" else f"[bold red]{told}[/]"


def _effects(line: Line) -> str:
    sides = (line.ours_effects, line.other_effects)
    return " / ".join(f"{one.lost}, {one.doubled}" for one in sides if one is not None)


def _told(value: float | None, unit: str = "") -> str:
    if value is None:
        return ""
    return f"{value:,.0f}{unit}" if abs(value) >= 100 else f"{value:.3g}{unit}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
