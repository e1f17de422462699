"""Puts deliveries into the ledger: `Recorder` for the receiver, `BlockingRecorder` for code that waits for each call.

Both run `lua/record.lua`, and neither records while a look at Redis says that it would lose or refuse deliveries.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, cast

import redis
import redis.asyncio
import structlog

from schemas.event import EventState, Receipt
from schemas.outcome import Source
from worker.errors import ConfigurationError, LedgerUnavailable
from worker.ledger.client import UNAVAILABLE, script_text
from worker.ledger.durability import Look, answered, ask, judge_redis, look_at, why_refusing
from worker.ledger.keys import key
from worker.ledger.processes import Presence
from worker.ledger.recent import Recent, note
from worker.ledger.recording import Arguments, Call, arguments_of
from worker.ledger.refusals import Refusals
from worker.ledger.sealed import Sealer
from worker.settings import Settings

#: The receiver must answer within a second.
DEADLINE: Final = timedelta(milliseconds=850)
#: How old the last look at Redis may be.
LOOK_EVERY_SECONDS: Final = 1.0
#: Calls under way at once. With two, a call that waits for a replica does not hold up all others.
_CALLS: Final = 2
#: Of one call: deliveries, and bytes, because payloads may be large.
_MOST, _MOST_BYTES = 64, 4 * 2**20
#: A `BlockingRecorder` begins no further step after this time. The last step takes up to a second more.
_LAST_STEP_SECONDS: Final = 1.0

Waiting = tuple[Arguments, "asyncio.Future[Any]"]


def _receipt(id: str, reply: Any) -> Receipt:
    if isinstance(reply, Exception):
        raise reply
    state, duplicate = reply
    return Receipt(id=id, state=EventState(state.decode()), duplicate=bool(duplicate))


_LOG = structlog.get_logger()


class _Refusal:
    """Why a recorder takes no deliveries just now, by its last look at Redis."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._why = ""
        #: By the last look that could tell.
        self._durable = True

    def check(self) -> None:
        """Raises LedgerUnavailable, with the reason, while no deliveries are taken."""
        if self._why:
            raise LedgerUnavailable(self._why)

    def update(self, look: Look) -> None:
        """Judge a new look. The log has a line when the answer changes."""
        why = self._judge(look)
        if why != self._why:
            _LOG.warning("record.refused" if why else "record.resumed", why=why or self._why)
        self._why = why

    def _judge(self, look: Look) -> str:
        try:
            judge_redis(look, self._settings)
        except ConfigurationError as error:
            self._durable = False
            return str(error)
        if look.rewriting and not self._durable:
            return "Redis writes its append-only file anew and keeps nothing before that is done"
        self._durable = True
        return why_refusing(look, self._settings.replicas)


class BlockingRecorder:
    """As `Recorder`, one delivery a call. For all threads of a process: each call has a connection of its own.

    It may be used after a fork: redis-py's pool notices one and connects anew.
    """

    def __init__(self, client: "redis.Redis", settings: Settings) -> None:
        self.client = client
        self._settings = settings
        self._call = Call(settings.replicas)
        self._refusal = _Refusal(settings)
        self._checked = False
        self._looked_at = float("-inf")
        self._sealer = Sealer(settings.sealing_keys)

    def record(self, tenant: str, id: str, source: Source, path: str, body: bytes, problem: str) -> Receipt:
        """As `Recorder.record`, in about two seconds at the longest.

        Raises LedgerUnavailable as that does; ConfigurationError when the first look finds a Redis that will not do.
        """
        arguments = arguments_of(tenant, id, source, path, self._sealer.seal(body, id), problem)
        last_step_at = time.monotonic() + _LAST_STEP_SECONDS
        try:
            if time.monotonic() - self._looked_at >= LOOK_EVERY_SECONDS:
                self.look(last_step_at)
            replies = self._replies(arguments, last_step_at)
            if self._call.is_unloaded(replies):
                self.look(last_step_at)
                _begin_step(last_step_at)
                self.client.script_load(self._call.script)
                replies = self._replies(arguments, last_step_at)  # the nonce makes a repeat harmless
            return _receipt(id, *self._call.answers(replies))
        except UNAVAILABLE as error:
            raise LedgerUnavailable(type(error).__name__) from None

    def look(self, last_step_at: float = float("inf")) -> None:
        """See whether Redis takes and keeps deliveries.

        Raises ConfigurationError the first time, LedgerUnavailable, and what Redis raises.
        """
        _begin_step(last_step_at)
        look = look_at(self.client)
        if not self._checked:
            judge_redis(look, self._settings)
            self._checked = True
        self._refusal.update(look)
        self._looked_at = time.monotonic()
        self._refusal.check()

    def _replies(self, arguments: Arguments, last_step_at: float) -> list[Any]:
        _begin_step(last_step_at)
        self._refusal.check()
        with self.client.pipeline(transaction=False) as pipeline:
            self._call.queue(pipeline, [arguments])
            return pipeline.execute(raise_on_error=False)


def _begin_step(last_step_at: float) -> None:
    if time.monotonic() > last_step_at:
        raise LedgerUnavailable("no answer in time")


class Recorder:
    """Records deliveries for one event loop, within a deadline. Not shared between threads.

    Deliveries that come while calls are under way go together in the next one, and share its cost.
    """

    def __init__(self, client: "redis.asyncio.Redis", settings: Settings) -> None:
        self.client = client
        self._call = Call(settings.replicas)
        self._refusal = _Refusal(settings)
        self._recent = Recent()
        self._sealer = Sealer(settings.sealing_keys)
        self._waiting: deque[Waiting] = deque()
        self._recording: set[asyncio.Task[None]] = set()
        self.refusals = Refusals()

    async def record(self, tenant: str, id: str, source: Source, path: str, body: bytes, problem: str) -> Receipt:
        """The receipt of a delivery. It is on disk when this returns, and on the replicas that are asked for.

        Raises LedgerUnavailable: Redis is away, slow, out of memory, less durable than wanted, or too few replicas
        answered.
        """
        self._refusal.check()
        arguments = arguments_of(tenant, id, source, path, self._sealer.seal(body, id), problem)
        answer = asyncio.get_running_loop().create_future()
        self._add((arguments, answer))
        try:
            async with asyncio.timeout(DEADLINE.total_seconds()):
                return _receipt(id, await answer)
        except UNAVAILABLE as error:
            raise LedgerUnavailable(type(error).__name__) from None

    def _add(self, waiting: Waiting) -> None:
        self._waiting.append(waiting)
        if len(self._recording) < _CALLS:
            self._recording.add(asyncio.create_task(self._record_all()))

    async def _record_all(self) -> None:
        """Record what waits, call after call, until nothing does."""
        try:
            while batch := self._batch():
                for (arguments, answer), reply in zip(batch, await self._replies(batch), strict=True):
                    if not isinstance(reply, Exception):
                        self._recent.add(arguments)
                    if not answer.done():
                        answer.set_result(reply)
        finally:  # synchronously: a delivery that arrives now must see that this task has ended, and start another
            self._recording.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _replies(self, batch: Sequence[Waiting]) -> Sequence[Any]:
        """A reply for each, which may be an exception: whatever goes wrong, each sender gets an answer."""
        try:
            async with asyncio.timeout(DEADLINE.total_seconds()):
                return await self._record([arguments for arguments, _ in batch])
        except Exception as error:  # noqa: BLE001
            if len(batch) > 1 and "WRONGTYPE" in str(error):  # a key of one of them is not what it must be
                return [reply for one in batch for reply in await self._replies([one])]
            return [error] * len(batch)

    def _batch(self) -> list[Waiting]:
        """The next deliveries. Those whose sender was answered are left out: they would fill the memory meanwhile."""
        batch: list[Waiting] = []
        size = 0
        while self._waiting and len(batch) < _MOST and size < _MOST_BYTES:
            arguments, answer = self._waiting.popleft()
            if not answer.done():
                batch.append((arguments, answer))
                size += sum(map(len, arguments))
        return batch

    async def _record(self, batch: Sequence[Arguments]) -> list[Any]:
        while True:
            async with self.client.pipeline(transaction=False) as pipeline:
                self._call.queue(pipeline, batch)
                replies = await pipeline.execute(raise_on_error=False)
            if not self._call.is_unloaded(replies):
                return self._call.answers(replies)
            await self._look()
            self._refusal.check()
            await self.client.script_load(self._call.script)  # and again: the nonce makes a repeat harmless

    async def _look(self) -> Look:
        async with self.client.pipeline(transaction=False) as pipeline:
            ask(pipeline)
            look = answered(await pipeline.execute(raise_on_error=False))
        self._refusal.update(look)
        return look

    async def _record_again(self, info: Mapping[str, Any]) -> None:
        """Give a Redis that has taken over what it lacks of what was acknowledged, under the same nonces."""
        if info.get("role") != "master" or (recent := self._recent.due(info)) is None:
            return
        async with self.client.pipeline(transaction=False) as pipeline:
            for tenant, id, *_ in recent:
                pipeline.exists(key(str(tenant), "event", str(id)))
            there = await pipeline.execute() if recent else []
        missing = [arguments for arguments, exists in zip(recent, there, strict=True) if not exists]
        answers = [asyncio.get_running_loop().create_future() for _ in missing]
        for waiting in zip(missing, answers, strict=True):
            self._add(waiting)
        if any(isinstance(reply, Exception) for reply in await asyncio.gather(*answers)):
            return  # the next look tries again
        async with self.client.pipeline(transaction=False) as pipeline:
            if self._recent.done() or missing:
                note(pipeline, info, len(recent), len(missing))
            await pipeline.execute()

    async def watch(self, presence: Presence) -> None:
        """Each second: look whether Redis takes and keeps deliveries, note refusals, register this process."""
        seen = self.client.register_script(script_text("seen"))
        while True:
            with suppress(*UNAVAILABLE):  # `record` reports what is wrong
                await self._record_again((await self._look()).info)
                await self.refusals.note(self.client)
                if presence.due():
                    await seen(args=presence.arguments())
            await asyncio.sleep(LOOK_EVERY_SECONDS)
