"""Which processes are at work: each says so every 10 seconds, with the configuration and version that it runs on.

A process that ends removes itself. So a silent one is frozen, killed or cut off; it is reported until it is forgotten.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import redis

from worker.ledger.client import text
from worker.ledger.keys import PROCESSES
from worker.ledger.times import instant, milliseconds
from worker.settings import running_version

EVERY: Final = timedelta(seconds=10)
#: One that has not been seen for so long does not live.
SILENT_AFTER: Final = timedelta(seconds=30)
#: After this long it is removed.
FORGOTTEN_AFTER: Final = timedelta(minutes=10)
#: A cron sweeps once a minute.
SWEEP_LATE: Final = timedelta(seconds=150)
#: Every kind there is, and what operators call it.
KINDS: Final = {"web": "receiver", "worker": "worker", "sweeper": "sweeper", "beat": "beat", "console": "console"}


@dataclass(frozen=True)
class Process:
    """What a process tells of itself. `digest`: of the tenants file that it has read."""

    kind: str
    name: str
    digest: str
    pid: int = field(default_factory=os.getpid)
    version: str = field(default_factory=running_version)
    #: By Redis' clock; None before it was.
    seen_at: datetime | None = None
    #: How long it has not been heard of.
    silent_seconds: int = 0

    @property
    def lives(self) -> bool:
        """Whether it was heard of lately."""
        return self.silent_seconds <= SILENT_AFTER.total_seconds()


class Presence:
    """One process' sign of life: asked as often as one likes, given every `EVERY`. Not shared between threads."""

    def __init__(self, process: Process, clock: Callable[[], float] = time.monotonic) -> None:
        self._process = process
        self._clock = clock
        self._due = clock()

    @property
    def name(self) -> str:
        """The process' name."""
        return self._process.name

    def due(self) -> bool:
        """Whether it is time; if so, the next is due later."""
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + EVERY.total_seconds()
        return True

    def arguments(self) -> tuple[str | int, ...]:
        """What the `seen` script takes."""
        members = asdict(self._process)
        del members["seen_at"], members["silent_seconds"]
        return self._process.name, json.dumps(members), milliseconds(FORGOTTEN_AFTER)


def at_host(name: str) -> str:
    """`name@host`, as Celery names its workers."""
    return f"{name}@{socket.gethostname()}"


def processes(client: "redis.Redis") -> list[Process]:
    """The processes that have not ended, by name: those that are at work, and those that fell silent."""
    pipeline = client.pipeline(transaction=False)
    pipeline.hgetall(PROCESSES)
    pipeline.zrange(f"{PROCESSES}.seen", 0, -1, withscores=True)
    pipeline.time()
    stored, seen, (seconds, microseconds) = pipeline.execute()
    now = instant(seconds * 1000 + microseconds // 1000)
    recent = {name: instant(at) for name, at in seen if now - instant(at) < FORGOTTEN_AFTER}
    found = [_process(stored[name], at, now) for name, at in recent.items() if name in stored]
    return sorted(found, key=lambda process: process.name)


def _process(stored: bytes, seen_at: datetime, now: datetime) -> Process:
    """From what a process wrote, which may be of another version: its further members are left out."""
    members: dict[str, Any] = json.loads(text(stored))
    names = ("kind", "name", "digest", "pid", "version")
    silent = max(0, round((now - seen_at).total_seconds()))
    return Process(**{name: members[name] for name in names}, seen_at=seen_at, silent_seconds=silent)


def ended(client: "redis.Redis", name: str) -> None:
    """A process ends by itself: it is not missed."""
    pipeline = client.pipeline(transaction=False)
    pipeline.hdel(PROCESSES, name)
    pipeline.zrem(f"{PROCESSES}.seen", name)
    pipeline.execute()


def silent(found: list[Process]) -> list[str]:
    """A sentence for each process that fell silent and has not ended."""
    return [
        f"{one.name} has not been heard of for {one.silent_seconds} s: frozen, killed or cut off"
        for one in found
        if not one.lives
    ]


def workerless(found: list[Process]) -> str | None:
    """A sentence when no worker lives, else None."""
    if any(one.kind == "worker" and one.lives for one in found):
        return None
    return "no worker is running: examrelay up, or what the Procfile says"


def late(at: datetime | None, now: datetime) -> str | None:
    """What is wrong with the last sweep's time; None when nothing is."""
    if at is None:
        return "no sweep yet: are beat and the sweeper running?"
    return f"the last sweep was {round((now - at).total_seconds())} s ago" if now - at > SWEEP_LATE else None


def differences(found: list[Process], own_digest: str) -> list[str]:
    """What is wrong with them together: processes, or the command that asks, on another tenants file than the rest."""
    by_digest: dict[str, list[str]] = {}
    for one in found:
        by_digest.setdefault(one.digest, []).append(one.name)
    warnings = []
    if len(by_digest) > 1:
        groups = "; ".join(f"{digest}: {', '.join(names)}" for digest, names in sorted(by_digest.items()))
        warnings.append(f"processes run on different tenants files ({groups}): restart those with the old one")
    if by_digest and own_digest not in by_digest:
        warnings.append(f"this command reads another tenants file ({own_digest}) than the processes do")
    return warnings
