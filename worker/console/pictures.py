"""The picture of a tenant's last day, drawn here: where each bar stands. The template writes it as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from worker.ledger.hours import Hour

#: The inner width and height of the picture, and how wide an hour is.
WIDTH: Final = 480
HEIGHT: Final = 64
_HOUR: Final = 20
_NICE: Final = (1, 2, 5, 10)


@dataclass(frozen=True)
class Bar:
    """An hour: the received behind, the synced before it. `x` from the left, heights from the zero line."""

    began: datetime
    received: int
    synced: int
    x: int
    received_height: float
    synced_height: float


@dataclass(frozen=True)
class Picture:
    """All hours, and what the top of the picture stands for."""

    bars: list[Bar]
    top: int

    @property
    def received(self) -> int:
        """In the whole day."""
        return sum(bar.received for bar in self.bars)

    @property
    def synced(self) -> int:
        """In the whole day."""
        return sum(bar.synced for bar in self.bars)


def draw(hours: Sequence[Hour]) -> Picture:
    """The picture of some hours, the oldest on the left. Zero is always at the bottom."""
    top = _top(max((max(hour.received, hour.synced) for hour in hours), default=0))
    return Picture(
        [
            Bar(hour.began, hour.received, hour.synced, _HOUR * place, *(_high(count, top) for count in hour[1:]))
            for place, hour in enumerate(hours)
        ],
        top,
    )


def _high(count: int, top: int) -> float:
    """One event of a thousand is still seen."""
    return max(1.0, round(HEIGHT * count / top, 1)) if count else 0.0


def _top(most: int) -> int:
    """The next round number."""
    scale: int = 10 ** max(0, len(str(most)) - 1)
    return next(step * scale for step in _NICE if step * scale >= most)
