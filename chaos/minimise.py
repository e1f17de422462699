"""A failing run cut down to few sittings: delta debugging (Zeller's ddmin) with a bounded number of runs."""

from collections.abc import Callable
from typing import Final

from chaos.schedule import Schedule

#: A run that fails by chance of timing may pass when it is repeated: each half is tried so often.
_TRIES: Final = 2


def minimise(plan: Schedule, fails: Callable[[Schedule], bool], runs: int = 24) -> Schedule:
    """The smallest part of the schedule's sittings that was found to fail still, after `runs` runs at most."""
    kept = [one.who for one in plan.sittings]
    pieces = 2
    while len(kept) > 1 and runs > 0:
        size = -(-len(kept) // pieces)
        for start in range(0, len(kept), size):
            rest = kept[:start] + kept[start + size :]
            if not rest:
                continue
            tries, failed = 0, False
            while tries < _TRIES and runs > 0 and not failed:
                failed, tries, runs = fails(plan.only(set(rest))), tries + 1, runs - 1
            if failed:
                kept, pieces = rest, max(pieces - 1, 2)
                break
        else:
            if size == 1:
                break
            pieces = min(len(kept), 2 * pieces)
    return plan.only(set(kept))
