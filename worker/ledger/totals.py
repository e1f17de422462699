"""Totals: what workers have counted since the ledger began. `/metrics` shows them, for workers have no HTTP port.

They go to Redis with the `apply` of a batch: a command for each name counted in it, and no round trip.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import redis

from worker.ledger.client import text
from worker.ledger.keys import key

#: The upper bounds of what is counted by how long it took, in seconds.
BOUNDS: Final[Mapping[str, Sequence[float]]] = {
    "rhythm_call": (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0),
    "synced": (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0, 259200.0),
}


class Totals(Counter[str]):
    """What to add."""

    def call(self, call: str, status: int | None, seconds: float) -> None:
        """A call to Rhythm has ended. `status`: None when no answer came."""
        self[f"rhythm_calls:{call}:{status or 'none'}"] += 1
        self.time("rhythm_call", seconds)

    def time(self, name: str, seconds: float) -> None:
        """One more of these took so long."""
        bound = next((bound for bound in BOUNDS[name] if seconds <= bound), "+Inf")
        self[f"{name}_le:{bound}"] += 1
        self[f"{name}_ms"] += round(1000 * seconds)


def totals(client: "redis.Redis", tenant: str) -> dict[str, int]:
    """All that was ever counted."""
    return {text(name): int(number) for name, number in client.hgetall(key(tenant, "totals")).items()}


def labelled(found: Mapping[str, int], name: str) -> list[tuple[list[str], int]]:
    """What was counted under `name`: labels, and the number."""
    split = ((counted.split(":"), number) for counted, number in sorted(found.items()))
    return [(labels, number) for (first, *labels), number in split if first == name]


def histogram(found: Mapping[str, int], name: str) -> tuple[list[tuple[str, int]], float]:
    """What was counted by time, as Prometheus wants it: up to each bound, how many; and the sum in seconds."""
    so_far, buckets = 0, []
    for bound in (*map(str, BOUNDS[name]), "+Inf"):
        so_far += found.get(f"{name}_le:{bound}", 0)
        buckets.append((bound, so_far))
    return buckets, found.get(f"{name}_ms", 0) / 1000
