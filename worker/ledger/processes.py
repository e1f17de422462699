"""Which processes are at work: each says so every 20 seconds, with the configuration and version that it runs on."""

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import redis

from worker.ledger.client import text
from worker.ledger.events import instant, milliseconds
from worker.ledger.keys import PROCESSES

EVERY: Final = timedelta(seconds=20)
#: One that has not been seen for so long has ended.
FORGOTTEN_AFTER: Final = timedelta(seconds=90)


@cache
def running_version() -> str:
    """The version of examrelay that this process runs."""
    try:
        return version("examrelay")
    except PackageNotFoundError:
        return "unknown"


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


class Presence:
    """One process' sign of life: asked as often as one likes, given every `EVERY`. Not shared between threads."""

    def __init__(self, process: Process, clock: Callable[[], float] = time.monotonic) -> None:
        self._process = process
        self._clock = clock
        self._due = clock()

    def due(self) -> bool:
        """Whether it is time; if so, the next is due later."""
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + EVERY.total_seconds()
        return True

    def arguments(self) -> tuple[str | int, ...]:
        """What the `seen` script takes."""
        told = asdict(self._process)
        del told["seen_at"]
        return self._process.name, json.dumps(told), milliseconds(FORGOTTEN_AFTER)


def at_host(name: str) -> str:
    """`name@host`, as Celery names its workers."""
    return f"{name}@{socket.gethostname()}"


def processes(client: "redis.Redis") -> list[Process]:
    """The processes that are at work, by name."""
    pipeline = client.pipeline(transaction=False)
    pipeline.hgetall(PROCESSES)
    pipeline.zrange(f"{PROCESSES}.seen", 0, -1, withscores=True)
    pipeline.time()
    told, seen, (seconds, _) = pipeline.execute()
    now = instant(seconds * 1000)
    known = {name: instant(at) for name, at in seen if now - instant(at) < FORGOTTEN_AFTER}
    found = [_process(told[name], at) for name, at in known.items() if name in told]
    return sorted(found, key=lambda one: one.name)


def _process(told: bytes, seen_at: datetime) -> Process:
    """From what a process told, which may be of another version: members that are not known are left out."""
    members: dict[str, Any] = json.loads(text(told))
    names = ("kind", "name", "digest", "pid", "version")
    return Process(**{name: members[name] for name in names}, seen_at=seen_at)


def differences(found: list[Process], own_digest: str) -> list[str]:
    """What is wrong with them together: processes, or the command that asks, on another tenants file than the rest."""
    by_digest: dict[str, list[str]] = {}
    for one in found:
        by_digest.setdefault(one.digest, []).append(one.name)
    warnings = []
    if len(by_digest) > 1:
        told = "; ".join(f"{digest}: {', '.join(names)}" for digest, names in sorted(by_digest.items()))
        warnings.append(f"processes run on different tenants files ({told}): restart those with the old one")
    if by_digest and own_digest not in by_digest:
        warnings.append(f"this command reads another tenants file ({own_digest}) than the processes do")
    return warnings
