"""examrelay's machinery. `enqueue` is the one public name: exam results from receivers of your own.

Importing this connects to nothing, reads no environment and loads nothing else of ours.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.event import Receipt

__all__ = ["enqueue"]


def enqueue(tenant: str, source: str, body: bytes | str, path: str | None = None) -> "Receipt":
    """Record a delivery as the receiver does, without its credentials. It is on disk when this returns.

    `body` is what the platform sent, byte for byte; text is encoded as UTF-8. `path` is the part of the platform's URL
    below the source, percent-encoded as it came (Drillster: `TEST_COMPLETED/42`). Returns the event's id, its state,
    and whether this delivery was recorded before: the same bytes to the same place are the same event.

    Takes about a millisecond. While Redis hangs or cannot be reached it raises after one second, two at the longest.
    A new connection may take longer: the system looks up Redis's name, and each of the first few answers may take a
    second. May be called from any thread and after a fork.

    Raises ValueError: no such tenant or source, or the body is neither bytes nor text. LedgerUnavailable
    (`worker.errors`): it may not be on disk, so call again later; that can never make two events.
    ConfigurationError: this process is not set up for it, or its Redis would lose what it acknowledges.
    """
    from worker.receiver.intake import intake

    return intake().accept(tenant, source, body, path)
