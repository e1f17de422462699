"""Deliveries that do not come over HTTP: what `worker.enqueue` and `tasks.receive` do."""

from functools import cache
from typing import Final
from urllib.parse import quote

from schemas.event import Receipt
from schemas.outcome import Source
from worker.errors import Unacceptable
from worker.ledger.client import connect_blocking_recorder
from worker.ledger.recorder import BlockingRecorder
from worker.receiver.body import keep
from worker.settings import Settings, load_settings
from worker.sources import event_id

#: Of a path only what a URL cannot hold is percent-encoded. The rest stays as the caller wrote it.
_SAFE_IN_PATH: Final = "/%:@!$&'()*+,;=~"


class Intake:
    """Checks a delivery's arguments as the receiver checks a request, and records it. For all threads of a process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._recorder = BlockingRecorder(connect_blocking_recorder(settings), settings)

    def accept(self, tenant: str, source: str, body: bytes | str, path: str | None = None) -> Receipt:
        """See `worker.enqueue`."""
        rules = self._settings.tenants.rules(tenant, source)
        kept = keep(_as_bytes(body), rules.credentials, self._settings.max_body_bytes)
        below = _below_source(path)
        id = event_id(tenant, Source(source), below, kept.content)
        return self._recorder.record(tenant, id, Source(source), below, kept.content, kept.problem)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._recorder.client.close()


def _as_bytes(body: object) -> bytes:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    if not isinstance(body, str):
        raise Unacceptable("the body is neither bytes nor text")
    try:
        return body.encode()
    except UnicodeEncodeError:
        raise Unacceptable("the body is text that UTF-8 cannot say: it has half of a surrogate pair") from None


def _below_source(path: object) -> str:
    """The path as it would stand in the receiver's URL."""
    if path is None:
        return ""
    if not isinstance(path, str):
        raise Unacceptable("the path is not text")
    try:
        return quote(path.partition("?")[0].strip("/"), safe=_SAFE_IN_PATH)
    except UnicodeEncodeError:
        raise Unacceptable("the path is text that no URL can hold") from None


@cache
def intake() -> Intake:
    """This process's intake, made at the first call. Raises ConfigurationError."""
    return Intake(load_settings())
