"""The receiver: events of 3 KB accepted a second, fsynced; against one that only pushes, and apply_async.

Only receivers run here, each with a Valkey of its own: nothing takes away what they accept.
"""

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from bench.line import Line
from bench.load import accepted_a_second, wrk, wrk_accepted_a_second
from bench.others import Naive
from bench.ours import Ours
from bench.session import Session
from bench.sides import Side

_BUDGETS: Final = {"lpush": (0.5, 0.7), "apply_async": (4, 8)}
Load = Callable[[int, float], float]


def measure(session: Session) -> Iterator[Line]:
    """All three in turns; by our own load, and by wrk where that is installed."""
    ours = session.side(Ours, "receiver")
    ours.start_all("web")
    sides: dict[str, Side] = {"ours": ours}
    for kind in _BUDGETS:
        other = session.side(Naive, f"receiver-{kind}")
        other.start_receiver(kind)
        sides[kind] = other
    for side in sides.values():
        side.answers()
    loads: dict[str, Load] = {"our own load": accepted_a_second}
    if program := wrk():
        loads["wrk"] = partial(wrk_accepted_a_second, program)
    for by, load in loads.items():
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(session.size.rounds):
            for name, side in sides.items():
                rates[name].append(load(side.port, session.size.receiver_seconds))
        for kind, (budget, aim) in _BUDGETS.items():
            yield Line(
                f"accepted a second, against {kind}, by {by}",
                statistics.median(rates["ours"]),
                statistics.median(rates[kind]),
                statistics.median(one / other for one, other in zip(rates["ours"], rates[kind], strict=True)),
                at_least=budget,
                aim=aim,
            )
    for side in sides.values():
        side.end()
