"""The HTTP door's side of the ledger: `record`, asynchronously, within a deadline."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from schemas.event import Receipt
from schemas.outcome import Source
from worker.errors import LedgerUnavailable
from worker.ledger.client import DOOR_CONNECTIONS, UNTOLD, WANTED, judge_redis, script_text, told_config
from worker.ledger.events import enough, receipt, record_arguments, wait_arguments
from worker.ledger.keys import key
from worker.ledger.processes import Presence
from worker.ledger.sealed import Sealer
from worker.settings import Settings

#: An answer must be out within a second.
DEADLINE: Final = timedelta(milliseconds=850)
#: A full Redis must be able to drain: above this share of `maxmemory` nothing new is taken.
FULL: Final = 0.85
_REFUSALS_KEPT: Final = 50


class Door:
    """Records deliveries. One a process; not shared between threads."""

    def __init__(self, client: "redis.asyncio.Redis", replicas: int, keys: Sequence[bytes] = ()) -> None:
        self.client = client
        self._replicas = replicas
        self._record = client.register_script(script_text("record"))
        self._sealer = Sealer(keys)
        #: Set by `watch_memory` or `look_at_memory`.
        self.full = False
        self._look_at = 0.0
        #: redis-py's own waiting pool does the same and costs a tenth of a request.
        self._free = asyncio.Semaphore(DOOR_CONNECTIONS)

    async def record(self, tenant: str, id: str, source: Source, path: str, body: bytes, problem: str) -> Receipt:
        """On disk when it returns, and on the replicas asked for.

        Raises LedgerUnavailable: Redis is away, slow, out of memory, or too few replicas answered.
        """
        if self.full:
            raise LedgerUnavailable("Redis is nearly full")
        arguments = record_arguments(tenant, id, source, path, self._sealer.seal(body, id), problem)
        try:
            async with asyncio.timeout(DEADLINE.total_seconds()), self._free:
                if self._replicas:
                    return receipt(id, await self._record_and_wait(arguments))
                return receipt(id, await self._record(args=arguments))
        except (RedisError, OSError, TimeoutError) as error:
            raise LedgerUnavailable(type(error).__name__) from None

    async def _record_and_wait(self, arguments: tuple[str | bytes, ...]) -> list[object]:
        """The record script, then WAIT."""
        async with self.client.pipeline(transaction=False) as pipeline:
            await self._record(args=arguments, client=pipeline)
            pipeline.execute_command("WAIT", *wait_arguments(self._replicas))
            reply, acknowledged = await pipeline.execute()
        enough(acknowledged, self._replicas)
        return list(reply)

    async def refused(self, tenant: str, source: str, told: str) -> None:
        """Note a refusal for `status`, if Redis has a moment; the last 50 of a tenant and source are kept."""
        refusals = key(tenant, "refused", source)
        try:
            async with (
                asyncio.timeout(DEADLINE.total_seconds()),
                self._free,
                self.client.pipeline(transaction=False) as pipeline,
            ):
                pipeline.lpush(refusals, told)
                pipeline.ltrim(refusals, 0, _REFUSALS_KEPT - 1)
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError):
            return

    async def check(self, settings: Settings) -> None:
        """As `check_redis`. Raises ConfigurationError, and what Redis raises when it does not answer."""
        version = (await self.client.info("server"))["redis_version"]
        try:
            config = told_config(await self.client.config_get(*WANTED))
        except ResponseError:
            config = UNTOLD
        judge_redis(version, config, settings)

    async def look_at_memory(self) -> None:
        """Whether Redis has room, if that was not asked in the last second; where nobody watches."""
        now = time.monotonic()
        if now >= self._look_at:
            await self._look()
            self._look_at = now + 1

    async def _look(self) -> None:
        memory = await self.client.info("memory")
        limit = memory.get("maxmemory", 0)
        self.full = bool(limit) and memory["used_memory"] > FULL * limit

    async def watch_memory(self, presence: Presence | None = None) -> None:
        """Look once a second whether Redis has room, and say that we are here. Ends only when cancelled."""
        seen = self.client.register_script(script_text("seen"))
        while True:
            try:
                await self._look()
                if presence and presence.due():
                    await seen(args=presence.arguments())
            except (RedisError, OSError, TimeoutError):
                self.full = False  # recording will say what is wrong
            await asyncio.sleep(1)
