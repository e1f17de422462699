"""Receivers: events of 3 KB accepted a second, fsynced; ours, a bare one that pushes, one that calls apply_async.

Only receivers run here, each with a Valkey of its own: nothing takes away what they accept.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench.load import accepted_a_second, wrk, wrk_accepted_a_second
from bench.machines import Naive, Ours, Side
from sandbox.control import Sandbox

SECONDS: Final = 2.0
Load = Callable[[int, float], float]
_OURS, _LPUSH, _APPLY = "ours", "lpush", "apply_async"


@dataclass(frozen=True, slots=True)
class Receivers:
    """Accepted a second, round by round."""

    by: str
    rates: dict[str, list[float]]

    def rate(self, receiver: str) -> float:
        """A receiver's median."""
        return statistics.median(self.rates[receiver])

    def ratio(self, other: str) -> float:
        """Ours to another, the median of the rounds' ratios."""
        return statistics.median(
            ours / theirs for ours, theirs in zip(self.rates[_OURS], self.rates[other], strict=True)
        )


def receivers(folder: Path, rhythm: Sandbox, rounds: int) -> list[Receivers]:
    """All three in turns; by our own load, and by wrk where that is installed."""
    ours = Ours(folder, rhythm.url)
    others = {kind: Naive(folder, rhythm.url) for kind in (_LPUSH, _APPLY)}
    sides: dict[str, Side] = {_OURS: ours, **others}
    try:
        ours.start_all("web")
        for kind, other in others.items():
            other.start_receiver(kind)
        for side in sides.values():
            side.answers()
        program = wrk()
        loads: dict[str, Load] = {"python": accepted_a_second}
        if program:
            loads["wrk"] = partial(wrk_accepted_a_second, program)
        return [
            Receivers(by, _in_turns({name: side.port for name, side in sides.items()}, load, rounds))
            for by, load in loads.items()
        ]
    finally:
        for side in sides.values():
            side.close()


def _in_turns(ports: dict[str, int], load: Load, rounds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(rounds):
        for name, port in ports.items():
            rates[name].append(load(port, SECONDS))
    return rates
