"""The ledger's times: milliseconds since 1970, by Redis' clock; and how long things are kept."""

from datetime import UTC, datetime, timedelta
from typing import Final

#: Identity (delivery, version, what was written) is kept this long; an older completion is `result_ancient`.
IDENTITY_KEPT: Final = timedelta(days=400)
#: A payload is kept this long after its event is final, where the settings say nothing else.
PAYLOAD_KEPT: Final = timedelta(days=30)


def milliseconds(span: timedelta) -> int:
    """Whole milliseconds."""
    return span // timedelta(milliseconds=1)


def instant(stamp: str | bytes | float) -> datetime:
    """The instant of a ledger time (milliseconds)."""
    return datetime.fromtimestamp(int(stamp) / 1000, UTC)
