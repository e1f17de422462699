"""What was acknowledged in the last seconds, kept in memory to be recorded again where another Redis takes over.

A replica that becomes primary lacks what it had not got yet, and nobody but its receiver knows of that.
"""

import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import redis

from worker.ledger.client import text
from worker.ledger.keys import TAKEOVERS
from worker.ledger.recording import Arguments

#: Longer than a replica is behind, and than a former primary goes on before the sentinels stop it.
_SECONDS: Final = 15.0
_BYTES: Final = 32 * 2**20


class Recent:
    """What one receiver acknowledged lately, and which Redis it last saw."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, Arguments]] = deque()
        self._size = 0
        #: The history of writes that was seen last: each start of a primary, and each promotion, begins another.
        self._history = ""
        self._looks_left, self._new = 0, False

    def add(self, arguments: Arguments) -> None:
        """Keep it. Only what is added later makes it forgotten: in an outage nothing is."""
        now = time.monotonic()
        self._kept.append((now, arguments))
        self._size += sum(map(len, arguments))
        while self._size > _BYTES or self._kept[0][0] < now - _SECONDS:
            self._size -= sum(map(len, self._kept.popleft()[1]))

    def due(self, info: Mapping[str, Any]) -> list[Arguments] | None:
        """What must be in the Redis with this `INFO`; None while it is the same one.

        Twice, for a call that was under way to the former one when this one was seen.
        """
        if info["master_replid"] != self._history:
            self._looks_left = 2 if self._history else 1
            self._new, self._history = True, info["master_replid"]
        return [arguments for _, arguments in self._kept] if self._looks_left else None

    def done(self) -> bool:
        """All that was due is there. Whether it was looked for the first time."""
        self._looks_left -= 1
        new, self._new = self._new, False
        return new


def note(pipeline: Any, info: Mapping[str, Any], remembered: int, missing: int) -> None:
    """Queue a sentence for `audit` where this Redis was a replica, on a pipeline of either kind."""
    if info.get("second_repl_offset", -1) == -1:
        return
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: a replica became primary"
    if remembered:
        again = ", which were recorded again" if missing else ""
        told = f"it lacked {missing} of the last {remembered} results acknowledged{again}"
        pipeline.hset(TAKEOVERS, info["master_replid"], f"{at}: {told}.")
    else:  # the receiver was started since; another one may remember
        told = (
            "no receiver remembers what was acknowledged before. Let the platforms deliver that minute's results again"
        )
        pipeline.hsetnx(TAKEOVERS, info["master_replid"], f"{at}, and {told}.")


def takeovers(client: "redis.Redis") -> list[str]:
    """A sentence for each time that a replica became primary, oldest first."""
    return sorted(map(text, client.hvals(TAKEOVERS)))
