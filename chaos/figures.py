"""What a run, or many, had to stand: events, deaths, failures, calls, and how soon work went on. Pure."""

import statistics
from collections import Counter
from dataclasses import dataclass, field

from chaos.bodies import Json
from chaos.schedule import Schedule


@dataclass
class Figures:
    """Of one run, or added up over several."""

    runs: int = 0
    events: int = 0
    calls: int = 0
    acts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    #: By what the nemesis did: seconds from its end to the next write that Rhythm applied, whoever's it was.
    moved: dict[str, list[float]] = field(default_factory=dict)
    #: Seconds from the end of all failures until nothing waited any more.
    quiet: list[float] = field(default_factory=list)

    def add(self, other: "Figures") -> None:
        """Add another's."""
        self.runs, self.events, self.calls = (
            self.runs + other.runs,
            self.events + other.events,
            self.calls + other.calls,
        )
        self.acts += other.acts
        self.faults += other.faults
        self.refused += other.refused
        self.restarts += other.restarts
        for what, seconds in other.moved.items():
            self.moved.setdefault(what, []).extend(seconds)
        self.quiet += other.quiet

    def lines(self) -> list[str]:
        """As they are printed."""
        said = [
            f"{self.events} events, {self.calls / max(self.events, 1):.2f} calls an event",
            f"nemesis: {_counts(self.acts)}",
            f"Rhythm's failures, windows: {_counts(self.faults)}",
            f"ended by themselves and started again: {_counts(self.restarts)}",
            f"senders were refused: {_counts(self.refused)}",
        ]
        for what, seconds in sorted(self.moved.items()):
            said.append(f"the next write after {what}: {_spread(seconds)} ({len(seconds)})")
        return [*said, f"nothing waited any more after {_spread(self.quiet)}" if self.quiet else "never quiet"]


def figures(plan: Schedule, seen: Json) -> Figures:
    """Of one run."""
    tenants = seen["tenants"].values()
    made = Figures(1, len(seen["events"]), sum(one["calls"] for one in tenants))
    writes = sorted(
        write["at"]
        for one in tenants
        for record in one["records"].values()
        for write in record["history"]
        if write["by"] == "api"
    )
    for act in seen["acts"]:
        what = f"{act['what']} {act['target'].split('-')[0]}"
        made.acts[what] += 1
        after = next((at - act["ended"] for at in writes if at > act["ended"]), None)
        if after is not None:
            made.moved.setdefault(what, []).append(after)
    made.faults.update(one.settings["action"] for one in plan.faults)
    made.refused.update(seen["refused"])
    made.restarts.update(seen["restarts"])
    if seen["quiet_after"] is not None:
        made.quiet.append(seen["quiet_after"])
    return made


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counted.items())) or "none"


def _spread(seconds: list[float]) -> str:
    return f"p50 {statistics.median(seconds):.1f} s, max {max(seconds):.1f} s"
