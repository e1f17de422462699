"""Redis bytes an event, by what `used_memory` grows: waiting, and synced. Naive's are its queued message."""

from collections.abc import Iterator

from bench.line import Line
from bench.others import Naive
from bench.payloads import BIG, sittings
from bench.runs import backlog
from bench.session import Session
from bench.sides import Side


def measure(session: Session) -> Iterator[Line]:
    """Both sides, on Valkeys of their own."""
    count = session.size.memory_events
    ours = session.ours("memory")
    ours.prune_payloads()
    before = ours.used_memory()
    backlog(ours, session.rhythm, sittings(count))
    kept = (ours.used_memory() - before) / count
    ours.prune_payloads()
    pruned = (ours.used_memory() - before) / count
    ours.end()
    body = sum(len(one.body) for one in sittings(20, BIG)) / 20
    waiting, message = (_waiting(side, count) for side in (ours, session.side(Naive, "naive-memory")))
    note = f"body {body:,.0f}; the other is naive's message"
    yield Line("40 KB with random ids, waiting", waiting, message, at_most=10_000, aim=4_000, note=note)
    yield Line("3 KB synced, payload pruned, all indexes", pruned, at_most=1_100, aim=800, note="used_memory")
    yield Line("3 KB synced, payload kept", kept)


def _waiting(side: Side, count: int) -> float:
    before = side.used_memory()
    side.load(sittings(count, BIG))
    return (side.used_memory() - before) / count
