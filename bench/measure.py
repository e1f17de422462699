"""Readings: CPU time of processes from /proc, what Redis counted, what the stand-in logged. Changes nothing."""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import redis

_TICKS = os.sysconf("SC_CLK_TCK")
#: Places in /proc/PID/stat after the name: session, then user, system, and those of children that have ended.
_SESSION, _TIMES = 3, slice(11, 15)
#: Between two looks at what is measured: each look costs its server some work.
_PAUSE: Final = 0.1


def wait(look: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until `look` is true, looking seldom. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come about within {seconds:g} s")
        time.sleep(_PAUSE)


def cpu_seconds(sessions: Iterable[int], pids: Iterable[int] = ()) -> float:
    """User and system time of these sessions' processes and of these single processes, so far."""
    wanted, single = set(sessions), set(pids)
    ticks = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(folder.name) in single or int(stat[_SESSION]) in wanted:
            ticks += sum(map(int, stat[_TIMES]))
    return ticks / _TICKS


@dataclass(frozen=True, slots=True)
class RedisCounts:
    """What a Redis has counted so far."""

    #: Reads from client sockets: a round trip is one, unless it is larger than 16 KB.
    reads: int
    #: Every command, those within scripts included.
    commands: int
    #: Celery messages published: hints, in ours.
    messages: int
    #: Time within scripts.
    seconds: float

    @classmethod
    def of(cls, client: "redis.Redis") -> Self:
        """As they are now."""
        commands: dict[str, Any] = client.info("commandstats")
        scripts = sum(commands.get(f"cmdstat_{name}", {}).get("usec", 0) for name in ("evalsha", "eval"))
        calls = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in commands.items()}
        return cls(
            reads=client.info("stats")["total_reads_processed"],
            commands=sum(calls.values()),
            messages=calls.get("lpush", 0),
            seconds=scripts / 1e6,
        )

    def since(self, before: "RedisCounts") -> "RedisCounts":
        """The difference."""
        return RedisCounts(*(getattr(self, one.name) - getattr(before, one.name) for one in fields(self)))


@dataclass(frozen=True, slots=True)
class Write:
    """One call that wrote to Rhythm: when it was answered, and which registrations it named."""

    at: float
    ids: tuple[str, ...]


def writes(log: Iterable[dict[str, Any]]) -> list[Write]:
    """The writes among the stand-in's calls, in order."""
    found = (one for one in log if one["kind"] in ("patch", "batch") and one["status"] == 200)
    return sorted((Write(one["ended_at"], tuple(one["ids"])) for one in found), key=lambda write: write.at)


def rate(done: Sequence[Write]) -> float:
    """Registrations a second from the first write's answer to the last's; 0 for fewer than two writes."""
    if len(done) < 2 or done[-1].at == done[0].at:
        return 0.0
    return sum(len(write.ids) for write in done[1:]) / (done[-1].at - done[0].at)


@dataclass(frozen=True, slots=True)
class Effects:
    """What became of the events that a rate is about: promise 3, beside the rate."""

    lost: int
    doubled: int

    @classmethod
    def of(cls, done: Iterable[Write], wanted: Iterable[str]) -> Self:
        """From the writes, and the registrations each of which was to be written once."""
        times = Counter(id for write in done for id in write.ids)
        counts = [times[id] for id in wanted]
        return cls(counts.count(0), sum(count - 1 for count in counts if count > 1))

    def __add__(self, other: "Effects") -> "Effects":
        return Effects(self.lost + other.lost, self.doubled + other.doubled)


def percentile(values: Sequence[float], share: int) -> float:
    """The value that `share` percent are at or below."""
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]
