"""What was measured, as rows: figure, ours, naive, ratio, budget, kept or missed. A table, or JSON."""

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.backlog import Pairs, Run
from bench.idle import Latency
from bench.memory import Bytes
from bench.receiver import Receivers

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `value` is what the budget is about: the ratio where there is one, else ours."""

    figure: str
    ours: float
    naive: float | None = None
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def value(self) -> float:
        """What is held against the budget."""
        return self.ours if self.ratio is None else self.ratio

    @property
    def kept(self) -> bool | None:
        """Whether the budget is kept; None without one."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    @property
    def budget(self) -> str:
        """In words."""
        unit = "" if self.ratio is None else " x"
        return "".join(
            f"{sign} {bound:g}{unit}"
            for sign, bound in ((">=", self.at_least), ("<=", self.at_most))
            if bound is not None
        )


@dataclass(slots=True)
class Results:
    """Everything that one run has measured."""

    backlog: dict[int, Pairs] = field(default_factory=dict)
    idle: dict[int, tuple[Latency, Latency]] = field(default_factory=dict)
    receivers: list[Receivers] = field(default_factory=list)
    memory: Bytes | None = None

    def rows(self) -> list[Row]:
        """The table."""
        rows = [row for latency, pairs in self.backlog.items() for row in _backlog(latency, pairs)]
        rows += [row for latency, sides in self.idle.items() for row in _idle(latency, *sides)]
        rows += [row for receivers in self.receivers for row in _receivers(receivers)]
        return rows + (_memory(self.memory) if self.memory else [])


def _median(runs: Sequence[Run], of: Callable[[Run], float]) -> float:
    return statistics.median(of(run) for run in runs)


def _backlog(latency: int, pairs: Pairs) -> Iterator[Row]:
    where = f"backlog, {latency} ms a call"

    def row(what: str, of: Callable[[Run], float], **budget: Any) -> Row:
        return Row(f"{where}: {what}", _median(pairs.ours, of), _median(pairs.naive, of), **budget)

    yield row(
        "written a second",
        lambda run: run.rate,
        ratio=pairs.ratio,
        at_least=12 if latency == 0 else 10,
        note=f"naive: {pairs.pool}; best against best {pairs.best:.1f} x",
    )
    cpu = statistics.median(n.cpu_ms / o.cpu_ms for o, n in zip(pairs.ours, pairs.naive, strict=True))
    yield row("CPU ms an event", lambda run: run.cpu_ms, ratio=cpu, at_least=5, note="naive / ours; without a receiver")
    yield row("of it Valkey's", lambda run: run.valkey_cpu_ms)
    yield row("Rhythm calls an event", lambda run: run.calls, at_most=0.025)
    yield row("registrations a write", lambda run: run.fill)
    yield row(
        "hints an event", lambda run: run.each(run.redis.messages), at_most=0.01, note="naive's were queued before"
    )
    yield row("Redis round trips an event", lambda run: run.each(run.redis.reads), at_most=0.15)
    yield row("Redis commands an event", lambda run: run.each(run.redis.commands), note="those in scripts included")


def _idle(latency: int, ours: Latency, naive: Latency) -> Iterator[Row]:
    most = 2 if latency == 0 else 1.2
    for name, our, their in (("p50", ours.p50, naive.p50), ("p90", ours.p90, naive.p90)):
        yield Row(f"idle, {latency} ms a call: 2xx to written, {name} ms", our, their, our / their, at_most=most)
    yield Row(f"idle, {latency} ms a call: Rhythm calls an event", ours.calls, naive.calls)


def _receivers(receivers: Receivers) -> Iterator[Row]:
    for other, least in (("lpush", 0.5), ("apply_async", 3)):
        yield Row(
            f"receiver, accepted a second, against {other}",
            receivers.rate("ours"),
            receivers.rate(other),
            receivers.ratio(other),
            at_least=least,
            note=f"load by {receivers.by}",
        )


def _memory(bytes: Bytes) -> list[Row]:
    ratio = bytes.waiting / bytes.naive_waiting
    return [
        Row("Redis bytes an event: 40 KB waiting", bytes.waiting, at_most=10_000, note=f"body {bytes.body:.0f}"),
        Row("the same against naive's message", bytes.waiting, bytes.naive_waiting, ratio),
        Row("Redis bytes an event: 3 KB synced, payload pruned", bytes.pruned, at_most=1_200),
        Row("Redis bytes an event: 3 KB synced, payload kept", bytes.kept),
    ]


def as_json(results: Results, seconds: float) -> str:
    """Rows and every single run."""
    rows = [asdict(row) | {"kept": row.kept} for row in results.rows()]
    return json.dumps({"at": _now(), "seconds": round(seconds), "rows": rows, "measured": asdict(results)}, indent=1)


def keep(text: str) -> Path:
    """Write a run's JSON to a file of its own."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{_now().replace(':', '')}.json"
    path.write_text(text)
    return path


def show(results: Results) -> None:
    """Print the table."""
    table = Table("figure")
    for name in ("ours", "naive", "ratio"):
        table.add_column(name, justify="right")
    for name in ("budget", "", "note"):
        table.add_column(name)
    for row in results.rows():
        verdict = {True: "kept", False: "[bold red]missed", None: ""}[row.kept]
        table.add_row(row.figure, _told(row.ours), _told(row.naive), _told(row.ratio), row.budget, verdict, row.note)
    Console(width=None if Console().is_terminal else 150).print(table)


def _told(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
