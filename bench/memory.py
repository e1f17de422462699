"""Redis bytes an event, by what `used_memory` grows: waiting, and synced. Naive's are its queued message."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.backlog import run, warm_ours
from bench.machines import TENANT, Naive, Ours
from bench.payloads import BIG, Sitting, sittings
from sandbox.control import Sandbox

EVENTS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes an event."""

    #: Of the body as posted.
    body: float
    waiting: float
    naive_waiting: float
    #: 3 KB, synced, the payload still kept.
    kept: float
    #: The same, the payload pruned.
    pruned: float


def memory(folder: Path, rhythm: Sandbox) -> Bytes:
    """Both sides, on Valkeys of their own."""
    ours, naive = Ours(folder, rhythm.url), Naive(folder, rhythm.url)
    try:
        kept, pruned = _synced(ours, rhythm)
        for name in list(ours.running):
            ours.end(name)
        big = sittings(EVENTS, BIG)
        body = sum(len(one.body) for one in big) / EVENTS
        return Bytes(body, _waiting(ours, big), _waiting(naive, big), kept, pruned)
    finally:
        ours.close()
        naive.close()


def _waiting(side: Ours | Naive, given: list[Sitting]) -> float:
    before = side.used_memory()
    side.load(given)
    return (side.used_memory() - before) / len(given)


def _synced(ours: Ours, rhythm: Sandbox) -> tuple[float, float]:
    """With the payload, and without it: what is left once it has expired."""
    warm_ours(ours, rhythm)
    _prune(ours)
    before = ours.used_memory()
    run(ours, rhythm, EVENTS)
    kept = ours.used_memory()
    _prune(ours)
    return (kept - before) / EVENTS, (ours.used_memory() - before) / EVENTS


def _prune(ours: Ours) -> None:
    """What 30 days do to payloads of final events."""
    names = list(ours.client.scan_iter(f"er:{TENANT}:payload:*", count=1000))
    if names:
        ours.client.delete(*names)
