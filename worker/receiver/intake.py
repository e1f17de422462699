"""Deliveries that do not come over HTTP: the receiver's own record and hint, for threads and for forked processes.

The receiver's half of the ledger is asynchronous, because only that bounds the whole of a call, names and connecting
included. So a process that calls has one thread with an event loop, made at its first call.
"""

import asyncio
import atexit
import os
from concurrent.futures import TimeoutError as TookTooLong
from threading import Lock, Thread
from typing import Final
from urllib.parse import quote

from schemas.event import Receipt
from schemas.outcome import Source
from worker.errors import LedgerUnavailable, Unacceptable
from worker.ledger.client import UNAVAILABLE, connect_recorder
from worker.ledger.recorder import DEADLINE, Recorder
from worker.receiver.body import Body, keep
from worker.settings import Settings, load_settings
from worker.sources import event_id
from worker.tenants import SourceRules

#: The loop keeps the deadline; this holds when its thread gets no turn.
_LONGEST_SECONDS: Final = DEADLINE.total_seconds() + 0.1
#: Of a path only what a URL cannot hold is encoded: the rest is as it came.
_AS_IT_CAME: Final = "/%:@!$&'()*+,;=~"


class Intake:
    """One process' way into the ledger. For all of its threads; of no use in its children."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tenants = settings.tenants.tenants
        self._recorder = Recorder(connect_recorder(settings), settings)
        self._checked = False
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="examrelay-intake", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def accept(self, tenant: str, source: str, body: bytes | str, path: str | None = None) -> Receipt:
        """What `worker.enqueue` says."""
        rules = self._rules(tenant, source)
        kept = keep(_as_bytes(body), rules.credentials, self._settings.max_body_bytes)
        below = _below_source(path)
        id = event_id(tenant, Source(source), below, kept.content)
        recording = asyncio.run_coroutine_threadsafe(self._record(tenant, id, Source(source), below, kept), self._loop)
        try:
            return recording.result(_LONGEST_SECONDS)
        except TookTooLong:
            recording.cancel()
            raise LedgerUnavailable("no answer in time") from None

    def close(self) -> None:
        """Give back connections and the thread. Nothing in a child: they are its parent's."""
        atexit.unregister(self.close)
        if os.getpid() != self._pid or self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._recorder.client.aclose(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _rules(self, tenant: str, source: str) -> SourceRules:
        known = self._tenants.get(tenant) if isinstance(tenant, str) else None
        if known is None:
            raise Unacceptable(f"there is no such tenant; there are: {', '.join(self._tenants)}")
        rules = known.sources.get(Source(source)) if isinstance(source, str) and source in set(Source) else None
        if rules is None:
            raise Unacceptable(f"this tenant has no such source; it has: {', '.join(known.sources)}")
        return rules

    async def _record(self, tenant: str, id: str, source: Source, path: str, body: Body) -> Receipt:
        try:
            async with asyncio.timeout(DEADLINE.total_seconds()):
                if not self._checked:
                    await self._recorder.check()
                    self._checked = True
                await self._recorder.look()
                return await self._recorder.record(tenant, id, source, path, body.content, body.problem)
        except UNAVAILABLE as error:
            raise LedgerUnavailable(type(error).__name__) from None


def _as_bytes(body: object) -> bytes:
    match body:
        case bytes() | bytearray() | memoryview():
            return bytes(body)
        case str():
            try:
                return body.encode()
            except UnicodeEncodeError:
                raise Unacceptable("the body is text that UTF-8 cannot say: it has half of a surrogate pair") from None
    raise Unacceptable("the body is neither bytes nor text")


def _below_source(path: object) -> str:
    """The path as the receiver would have it."""
    if path is None:
        return ""
    if not isinstance(path, str):
        raise Unacceptable("the path is not text")
    try:
        return quote(path.partition("?")[0].strip("/"), safe=_AS_IT_CAME)
    except UnicodeEncodeError:
        raise Unacceptable("the path is text that no URL can hold") from None


_intakes: dict[int, Intake] = {}
_making = Lock()


def intake() -> Intake:
    """This process' way in, made at first use: after a fork each child has its own. Raises ConfigurationError."""
    made = _intakes.get(os.getpid())
    if made is None:
        with _making:
            made = _intakes.get(os.getpid()) or _intakes.setdefault(os.getpid(), Intake(load_settings()))
    return made


def _after_fork() -> None:
    global _making
    _making = Lock()


os.register_at_fork(after_in_child=_after_fork)
