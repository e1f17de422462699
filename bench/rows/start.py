"""The command's own start: `--help`, and `status` on a small ledger, as a user types them."""

import statistics
from collections.abc import Iterator
from typing import Final

from bench.line import Line
from bench.session import Session

_BUDGETS: Final = {"--help": 0.4, "status": 0.6}


def measure(session: Session) -> Iterator[Line]:
    """Seconds, the median of several."""
    ours = session.ours()
    for argument, budget in _BUDGETS.items():
        took = statistics.median(ours.command(argument) for _ in range(session.size.starts))
        yield Line(f"{argument}, seconds", took, at_most=budget, aim=0.2)
