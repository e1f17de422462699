"""How much is measured: `usual` is `make bench`, `long` is `make bench-all`, `tiny` is for a test."""

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Size:
    """Numbers of events, samples and seconds."""

    #: Turns of each pair of sides.
    rounds: int
    #: Ours, in a backlog of 3 KB, of 40 KB, and over HTTP.
    events: int
    big_events: int
    whole_events: int
    #: How long a run of the naive pipeline takes; its number of events follows from its rate.
    naive_seconds: float
    idle_samples: int
    pace_seconds: int
    #: Events that wait while Rhythm is down.
    outage_events: int
    receiver_seconds: float
    #: Events in the large ledger; a tenth as many wait for a person there.
    ledger: int
    #: Events matched by student or e-mail, and open registrations of their exam.
    lookups: int
    registrations: int
    starts: int
    memory_events: int

    def with_rounds(self, rounds: int | None) -> "Size":
        """The same with other turns, if some are given."""
        return replace(self, rounds=rounds) if rounds else self


SIZES: Final = {
    "tiny": Size(1, 200, 40, 100, 0.5, 20, 4, 60, 0.5, 3_000, 60, 200, 1, 100),
    "usual": Size(3, 4_000, 1_500, 3_000, 3, 510, 15, 1_800, 2, 100_000, 1_000, 2_000, 5, 2_000),
    "long": Size(5, 10_000, 3_000, 6_000, 8, 1_000, 60, 7_200, 4, 1_000_000, 2_000, 2_000, 9, 5_000),
}
