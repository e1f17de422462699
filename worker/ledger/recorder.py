"""The receiver's side of the ledger: `record`, asynchronously, within a deadline."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, cast

import redis.asyncio
import structlog
from redis.exceptions import NoScriptError, RedisError

from schemas.event import Receipt
from schemas.outcome import Source
from worker.errors import ConfigurationError, LedgerUnavailable
from worker.ledger.client import RECORDER_CONNECTIONS, script_text
from worker.ledger.durability import Look, answered, ask, judge_redis, why_refusing
from worker.ledger.keys import key
from worker.ledger.processes import Presence
from worker.ledger.recording import enough, receipt, record_arguments, wait_arguments
from worker.ledger.sealed import Sealer
from worker.settings import Settings

#: An answer must be out within a second.
DEADLINE: Final = timedelta(milliseconds=850)
_REFUSALS_KEPT: Final = 50
#: Calls under way at once: one that waits for a replica does not hold up all others.
_CALLS: Final = 2
#: Of one call; payloads may be large.
_MOST, _MOST_BYTES = 64, 4 * 2**20
_LOG = structlog.get_logger()


Arguments = tuple[str | bytes, ...]
Waiting = tuple[Arguments, "asyncio.Future[Any]"]


class Recorder:
    """Records deliveries. One a process; not shared between threads.

    Those that come while calls are under way go together in the next: what a call costs is shared.
    """

    def __init__(self, client: "redis.asyncio.Redis", settings: Settings) -> None:
        self.client = client
        self._settings = settings
        self._replicas = settings.replicas
        self._script = script_text("record")
        self._sha = ""
        self._sealer = Sealer(settings.sealing_keys)
        #: Why nothing is taken just now; empty: it is. Set by `watch` or `look`.
        self.refusal = ""
        #: As it was at the last look that could tell.
        self._durable = True
        self._look_at = 0.0
        self._waiting: deque[Waiting] = deque()
        self._recording: set[asyncio.Task[None]] = set()
        self._noting = asyncio.Semaphore(RECORDER_CONNECTIONS - 4)

    async def record(self, tenant: str, id: str, source: Source, path: str, body: bytes, problem: str) -> Receipt:
        """On disk when it returns, and on the replicas asked for.

        Raises LedgerUnavailable: Redis is away, slow, out of memory, less durable than wanted, or too few replicas
        answered.
        """
        if self.refusal:
            raise LedgerUnavailable(self.refusal)
        arguments = record_arguments(tenant, id, source, path, self._sealer.seal(body, id), problem)
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((arguments, answer))
        if len(self._recording) < _CALLS:
            self._recording.add(asyncio.create_task(self._record_all()))
        try:
            async with asyncio.timeout(DEADLINE.total_seconds()):
                return receipt(id, await answer)
        except (RedisError, OSError, TimeoutError) as error:
            raise LedgerUnavailable(type(error).__name__) from None

    async def _record_all(self) -> None:
        """Record what waits, call after call, until nothing does."""
        try:
            while batch := self._batch():
                for (_, answer), reply in zip(batch, await self._replies(batch), strict=True):
                    if answer.done():
                        continue
                    if isinstance(reply, Exception):
                        answer.set_exception(reply)
                    else:
                        answer.set_result(reply)
        finally:  # in the same breath: who comes now must not think that this task still looks
            self._recording.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _replies(self, batch: Sequence[Waiting]) -> Sequence[Any]:
        try:
            async with asyncio.timeout(DEADLINE.total_seconds()):
                return await self._call([arguments for arguments, _ in batch])
        except Exception as error:  # noqa: BLE001  # whatever it is, those who wait are told
            return [error] * len(batch)

    def _batch(self) -> list[Waiting]:
        """Whoever has given up is left out: else, while Redis hangs, they would fill the memory."""
        batch: list[Waiting] = []
        size = 0
        while self._waiting and len(batch) < _MOST and size < _MOST_BYTES:
            arguments, answer = self._waiting.popleft()
            if not answer.done():
                batch.append((arguments, answer))
                size += sum(map(len, arguments))
        return batch

    async def _call(self, batch: Sequence[Arguments]) -> list[Any]:
        """The record script for each, then WAIT. A reply may be an error, of its own or of all."""
        if not self._sha:
            self._sha = await self.client.script_load(self._script)
        async with self.client.pipeline(transaction=False) as pipeline:
            for arguments in batch:
                pipeline.execute_command("EVALSHA", self._sha, 0, *arguments)
            if self._replicas:
                pipeline.execute_command("WAIT", *wait_arguments(self._replicas))
            replies = await pipeline.execute(raise_on_error=False)
        if any(isinstance(reply, NoScriptError) for reply in replies):  # restarted, or another that took its place
            self._sha = ""
            await self._look()
            if self.refusal:
                raise LedgerUnavailable(self.refusal)
            return await self._call(batch)  # the nonce makes a repeat harmless
        if self._replicas:
            acknowledged = replies.pop()
            if isinstance(acknowledged, Exception):
                raise acknowledged
            enough(acknowledged, self._replicas)
        return list(replies)

    async def refused(self, tenant: str, source: str, told: str) -> None:
        """Note a refusal for `status`, if Redis has a moment; the last 50 of a tenant and source are kept."""
        refusals = key(tenant, "refused", source)
        try:
            async with (
                asyncio.timeout(DEADLINE.total_seconds()),
                self._noting,
                self.client.pipeline(transaction=False) as pipeline,
            ):
                pipeline.lpush(refusals, told)
                pipeline.ltrim(refusals, 0, _REFUSALS_KEPT - 1)
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError):
            return

    async def check(self) -> None:
        """As `check_redis`. Raises ConfigurationError, and what Redis raises when it does not answer."""
        judge_redis(await self._ask(), self._settings)

    async def look(self) -> None:
        """Whether Redis takes and keeps results, if that was not asked in the last second; where nobody watches."""
        now = time.monotonic()
        if now >= self._look_at:
            await self._look()
            self._look_at = now + 1

    async def _look(self) -> None:
        refusal = self._why_not(await self._ask())
        if refusal != self.refusal:
            _LOG.warning("record.refused" if refusal else "record.resumed", why=refusal or self.refusal)
        self.refusal = refusal

    async def _ask(self) -> Look:
        async with self.client.pipeline(transaction=False) as pipeline:
            ask(pipeline)
            return answered(await pipeline.execute(raise_on_error=False))

    def _why_not(self, look: Look) -> str:
        try:
            judge_redis(look, self._settings)
        except ConfigurationError as error:
            self._durable = False
            return str(error)
        if look.rewriting and not self._durable:
            return "Redis writes its append-only file anew and keeps nothing before that is done"
        self._durable = True
        return why_refusing(look, self._replicas)

    async def watch(self, presence: Presence | None = None) -> None:
        """Look once a second whether Redis takes and keeps results; say that we are here. Ends only when cancelled."""
        seen = self.client.register_script(script_text("seen"))
        while True:
            with suppress(RedisError, OSError, TimeoutError):  # recording will say what is wrong
                await self._look()
                if presence and presence.due():
                    await seen(args=presence.arguments())
            await asyncio.sleep(1)
