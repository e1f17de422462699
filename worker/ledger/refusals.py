"""What the receiver refused lately, for `status`: the last 50 of each tenant and source, noted once a second."""

from collections import defaultdict, deque
from typing import Final

import redis.asyncio

from worker.ledger.keys import key

_KEPT: Final = 50


class Refusals:
    """Those that are not noted yet. An attack costs no call to Redis, and no more memory than this."""

    def __init__(self) -> None:
        #: By key, oldest first.
        self._lines: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def keep(self, tenant: str, source: str, line: str) -> None:
        """One more. `tenant` and `source` are in the tenants file: strangers cannot add keys."""
        self._lines[key(tenant, "refused", source)].append(line)

    async def note(self, client: "redis.asyncio.Redis") -> None:
        """Write them in one call, if there are any. Raises what Redis raises; then they are lost."""
        lines, self._lines = self._lines, defaultdict(self._lines.default_factory)
        if lines:
            async with client.pipeline(transaction=False) as pipeline:
                for refusals, last in lines.items():
                    pipeline.lpush(refusals, *last)
                    pipeline.ltrim(refusals, 0, _KEPT - 1)
                await pipeline.execute()
