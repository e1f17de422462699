"""Whether the ledger agrees with itself: every event in one state, in that state's index, counted there, and whole.

Goes page by page, so that a million events cost little memory and no command that holds Redis up. Work goes on
meanwhile, so what does not agree is looked at again: only what is found each time, a moment apart, is a difference.
What must hold of an event, an index or a key is in `events.py`, `names.py` and `keys.py`.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final

import redis

from schemas.event import EventState
from worker.ledger.audit.events import Checks, Difference, Found, paged, read
from worker.ledger.audit.keys import KeyChecks
from worker.ledger.audit.names import NameChecks
from worker.ledger.client import text
from worker.ledger.keys import FINAL, INDEX_OF, key
from worker.ledger.queries import ids, redis_now
from worker.ledger.sealed import Sealer

#: Events or keys that are looked at together.
PAGE: Final = 250
#: A difference counts when it is found so often in a row, with a pause between.
LOOKS: Final = 3
PAUSE_SECONDS: Final = 0.05
#: At most this many differences are reported.
SHOWN: Final = 1000
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Books:
    """One tenant's accounts: how many events were accepted, found and pruned, and the differences."""

    accepted: int
    accounted: int
    pruned: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class _Counts:
    """The counts, and how many there are in each index, as of one moment."""

    counts: dict[str, int]
    cards: dict[str, int]

    def of(self, name: str) -> int:
        return self.counts.get(name, 0)


@dataclass(slots=True)
class _Walk:
    """A walk over all there is: what it has counted, and the differences that it has found."""

    events: int = 0
    counted: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    def look(self, check: Callable[[Sequence[str]], Found], subjects: Sequence[str]) -> None:
        """Note what is wrong with these each time that they are looked at, and count what they are the first time."""
        found = check(subjects)
        self.counted.update(found.counted)
        self.places.update(found.places)
        differences = found.differences
        for _ in range(LOOKS - 1):
            if not differences:
                return
            time.sleep(PAUSE_SECONDS)
            again = set(check(list(dict.fromkeys(one.subject for one in differences))).differences)
            differences = [one for one in differences if one in again]
        self.add(differences)

    def add(self, differences: Iterable[Difference]) -> None:
        """Note differences, up to as many as are shown."""
        noted = set(self.differences)
        fresh = (difference for difference in differences if difference not in noted)
        self.differences += islice(fresh, max(0, SHOWN - len(noted)))


def books(
    client: "redis.Redis", tenant: str, sealer: Sealer | None = None, progress: Progress = lambda _: None
) -> Books:
    """Look at all that the ledger has of a tenant. Invents nothing while work goes on.

    With a `sealer` it also opens what is stored for events that wait. `progress` gets the number of events done.
    """
    walk, before, until = _Walk(), _counts(client, tenant), redis_now(client).timestamp() * 1000
    checks = Checks(client, tenant, sealer)
    for page in paged((id for id, _, _ in walk_events(client, tenant, until=until)), PAGE):
        walk.look(checks.events, page)
        walk.events += len(page)
        progress(walk.events)
    for name in INDEX_OF.values():
        members = (text(id) for id, _ in client.zscan_iter(key(tenant, name), count=PAGE))
        for page in paged(members, PAGE):
            walk.look(partial(checks.members, name), page)
    rules = KeyChecks(client, tenant, pruned=_counts(client, tenant).of("pruned") > 0)
    for page in paged(map(text, client.scan_iter(f"er:{tenant}:*", count=4 * PAGE)), PAGE):
        walk.look(rules.keys, page)
    names = NameChecks(client, tenant)
    if uneven := names.uneven(walk.places, rules.buckets, until):
        walk.look(names.buckets, uneven)
        for page in paged((id for id, _, _ in walk_events(client, tenant, until=until)), PAGE):
            walk.look(names.events, page)
    after = _counts(client, tenant)
    walk.add([*_unbalanced(tenant, after), *_miscounted(before, after, walk.counted), *_by_reason(client, tenant)])
    lost = {one.id for one in walk.differences if (one.kind, one.expected) == ("event", "a state")}
    accounted = after.cards["events"] - len(lost)
    return Books(after.of("accepted"), accounted, after.of("pruned"), tuple(walk.differences))


def walk_events(
    client: "redis.Redis", tenant: str, since: float = 0.0, seen: int = 0, until: float | None = None
) -> Iterator[tuple[str, float, int]]:
    """All events recorded by `until` or now, oldest first: the id, when, and how many of that moment were seen.

    The last two are where to go on. By time, not by rank: pruning moves ranks.
    """
    place, last = key(tenant, "events"), until or redis_now(client).timestamp() * 1000

    def page() -> Any:
        return client.zrange(place, since, last, byscore=True, offset=seen, num=PAGE, withscores=True)

    while found := page():
        for id, at in found:
            since, seen = at, seen + 1 if at == since else 1
            yield text(id), since, seen


def _counts(client: "redis.Redis", tenant: str) -> _Counts:
    names = ("events", *INDEX_OF.values())
    pipeline = client.pipeline(transaction=True)
    pipeline.hgetall(key(tenant, "counts"))
    for name in names:
        pipeline.zcard(key(tenant, name))
    counts, *cards = pipeline.execute()
    return _Counts({text(name): int(number) for name, number in counts.items()}, dict(zip(names, cards, strict=True)))


def _unbalanced(tenant: str, now: _Counts) -> Iterator[Difference]:
    """Sums that the scripts keep equal at every moment, so they are compared exactly even under load."""
    kept, total = now.cards["events"], sum(now.of(state) for state in EventState)
    if now.of("accepted") != kept + now.of("pruned"):
        yield Difference(
            "conservation", tenant, None, f"{now.of('accepted')} accepted", f"{kept} and {now.of('pruned')} pruned"
        )
    if total != kept:
        yield Difference("count", "all states", None, str(kept), str(total))
    for state, name in INDEX_OF.items():
        if now.of(state) != now.cards[name]:
            yield Difference("count", state, None, str(now.cards[name]), str(now.of(state)))
    for state in (EventState.HELD, EventState.DEAD):
        by_reason = sum(number for name, number in now.counts.items() if name.startswith(f"{state}:"))
        if by_reason != now.of(state):
            yield Difference("count", f"{state} by reason", None, str(now.of(state)), str(by_reason))


def _miscounted(before: _Counts, after: _Counts, counted: "Counter[str]") -> Iterator[Difference]:
    """Of final events there are only ever more, but for those pruned: what was walked lies between before and after.

    At rest that is exact. `synced:{result}` counts what was done, so pruning does not take it back.
    """
    results = {name for one in (before.counts, after.counts, counted) for name in one if name.startswith("synced:")}
    for name in sorted({*FINAL, *results}):
        since = 0 if name in results else before.of("pruned")
        slack = after.of("pruned") - since
        if not before.of(name) - slack <= counted[name] <= after.of(name) + (0 if name in results else slack):
            yield Difference("count", name, None, str(counted[name]), str(after.of(name)))


def _by_reason(client: "redis.Redis", tenant: str) -> list[Difference]:
    """Held and dead events by reason, as often as the same is found wrong; nothing when they move meanwhile."""
    wrong = _once_by_reason(client, tenant)
    for _ in range(LOOKS - 1):
        if not wrong:
            break
        time.sleep(PAUSE_SECONDS)
        again = _once_by_reason(client, tenant)
        wrong = [one for one in wrong if one in again]
    return wrong


def _once_by_reason(client: "redis.Redis", tenant: str) -> list[Difference]:
    before, counted = _counts(client, tenant), Counter[str]()
    for state in (EventState.HELD, EventState.DEAD):
        for page in paged(ids(client, tenant, state), PAGE):
            reasons = read(client, [("HGET", key(tenant, "event", id), "reason") for id in page])
            counted.update(f"{state}:{text(reason)}" for reason in reasons if isinstance(reason, bytes))
    if before != _counts(client, tenant):
        return []
    names = {name for one in (before.counts, counted) for name in one if name.startswith(("held:", "dead:"))}
    return [
        Difference("count", name, None, str(counted[name]), str(before.of(name)))
        for name in sorted(names)
        if counted[name] != before.of(name)
    ]
