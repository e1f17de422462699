"""A ledger as large as one likes, fast: synced events as the scripts leave them, written past the scripts.

For what is measured at a million events: `python -m bench.ledger [EVENTS]`. The audit's own test holds it to the
ledger's rules.
"""

import base64
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import cache, partial
from itertools import islice
from typing import Any

import redis

from schemas.event import EventState, Reason
from schemas.outcome import Source
from tests.running import ROOT, Valkey
from worker.ledger import queries, trace
from worker.ledger.audit.books import books
from worker.ledger.client import text
from worker.ledger.events import Ledger
from worker.ledger.identity import Identity
from worker.ledger.queries import redis_now
from worker.ledger.sealed import Sealer

_PAGE = 2_000
_UNSEALED = Sealer()
_SPREAD = 300 * 86_400_000
_SAMPLES = {Source.CERTIVERSE: "whole.json", Source.DRILLSTER: "whole.json", Source.PROV: "whole.json"}


def load(client: "redis.Redis", identity: Identity, tenant: str, events: int, seed: int = 1) -> None:
    """So many synced events, each of a candidate, a delivery and a registration of its own, a payload pruned."""
    chance = random.Random(seed)
    until = int(redis_now(client).timestamp() * 1000)
    client.sadd("er:tenants", tenant)
    for start in range(0, events, _PAGE):
        pipeline = client.pipeline(transaction=False)
        page = min(_PAGE, events - start)
        for number in range(start, start + page):
            _event(pipeline, identity, tenant, chance, until - events + number)
        counts = f"er:{tenant}:counts"
        for name in ("accepted", "synced", "synced:written"):
            pipeline.hincrby(counts, name, page)
        pipeline.execute()


def _event(pipeline: Any, identity: Identity, tenant: str, chance: random.Random, at: int) -> None:
    id = "evt_" + base64.b32encode(chance.randbytes(20)).decode().lower()[:26]
    delivery, registration = f"certiverse:{chance.randbytes(16).hex()}", f"reg-{chance.randbytes(8).hex()}"
    version = identity.version(f"o-1{chance.randbytes(10).hex()}")
    student = f"stu-{chance.randbytes(6).hex()}"
    who = trace.who(identity, tenant, [student, f"{student}@example.org", chance.randbytes(8).hex()])
    values = json.dumps({"status": "passed", "score": "82.50", "exam_date": "2026-05-04T12:30:00Z"})
    pipeline.hset(
        f"er:{tenant}:event:{id}",
        mapping={
            "state": "synced",
            "source": "certiverse",
            "received_at": at,
            "result": "written",
            "who": who,
            "registration": registration,
            "delivery": delivery,
            "version": version,
            "history": "1438\tprepare\tprocess\n1459\tintend\tsync\n1473\tsettle\tsync\n",
        },
    )
    pipeline.zadd(f"er:{tenant}:events", {id: at})
    pipeline.hset(f"er:{tenant}:delivery:{delivery}", mapping={f"v:{version}": id, "rev": 2, "applied": version})
    pipeline.hset(
        f"er:{tenant}:registration:{registration}",
        mapping={
            "sys_version": 2,
            "event": id,
            "values": values,
            "rev": 1,
        },
    )
    for place in ("delivery:" + delivery, "registration:" + registration):
        pipeline.pexpire(f"er:{tenant}:{place}", 400 * 86_400_000)
    for name in trace.names(who):
        pipeline.rpush(f"er:{tenant}:names:{trace.bucket(name)}", trace.place(name, at))


def stop(client: "redis.Redis", tenant: str, events: int, seed: int = 2) -> None:
    """So many events more that wait for a person, half held and half dead, of three sources and twenty reasons."""
    chance = random.Random(seed)
    until = int(redis_now(client).timestamp() * 1000)
    for start in range(0, events, _PAGE):
        pipeline, counted = client.pipeline(transaction=False), Counter[str]()
        page = min(_PAGE, events - start)
        for number in range(start, start + page):
            _stopped(pipeline, tenant, chance, until - chance.randrange(_SPREAD), counted, number)
        for name, many in counted.items():
            pipeline.hincrby(f"er:{tenant}:counts", name, many)
        pipeline.hincrby(f"er:{tenant}:counts", "accepted", page)
        pipeline.execute()


def _stopped(pipeline: Any, tenant: str, chance: random.Random, at: int, counted: "Counter[str]", number: int) -> None:
    state = (EventState.HELD, EventState.DEAD)[number % 2]
    reason = chance.choice([one for one in Reason if one.policy.startswith(state)])
    id = "evt_" + base64.b32encode(chance.randbytes(20)).decode().lower()[:26]
    source = chance.choice(tuple(Source))
    counted.update([state, f"{state}:{reason}"])
    pipeline.hset(
        f"er:{tenant}:event:{id}",
        mapping={
            "state": state,
            "source": source,
            "received_at": at,
            "reason": reason,
            "detail": f"registration reg-{number} has another result already, of {number % 50}",
            "nonce": "n" * 22,
        },
    )
    pipeline.set(f"er:{tenant}:payload:{id}", _payload(source))
    for index_name in ("events", state):
        pipeline.zadd(f"er:{tenant}:{index_name}", {id: at})


@cache
def _payload(source: Source) -> bytes:
    """A payload of a platform, as it is stored without a key."""
    body = (ROOT / "tests" / "samples" / source / _SAMPLES[source]).read_bytes()
    return _UNSEALED.seal(body, "any event")


def _some(client: "redis.Redis") -> list[str]:
    chance = random.Random(2)
    last = client.zcard("er:acme:events") - 1
    places = (chance.randint(0, last) for _ in range(20))
    return [text(client.zrange("er:acme:events", place, place)[0]) for place in places]


def _status(client: "redis.Redis") -> None:
    """What `status` asks of the ledger for a tenant."""
    queries.counts(client, "acme"), queries.gate(client, "acme"), queries.redis_now(client)
    for state in (EventState.RECEIVED, EventState.READY):
        queries.oldest_due(client, "acme", state)


def _tell(what: str, calls: list[Callable[[], object]]) -> None:
    took = []
    for call in calls:
        began = time.perf_counter()
        call()
        took.append((time.perf_counter() - began) * 1000)
    print(f"{what}: median {statistics.median(took):.1f} ms, longest {max(took):.1f} ms")


def _listings(client: "redis.Redis") -> None:
    """The first fifty of listings: of what waits, and of what takes a walk over all events."""
    held, discarded = frozenset([EventState.HELD]), frozenset([EventState.DISCARDED])
    asked = {
        "all": queries.Wanted(),
        "held of a source and reason": queries.Wanted(held, Source.PROV, Reason.WRITES_OFF),
        "a reason that none has": queries.Wanted(reason=Reason.REGISTRATION_LOCKED),
        "discarded, of which there are none": queries.Wanted(discarded),
        "forgotten, over all events": queries.Wanted(reason=Reason.FORGOTTEN),
    }
    for what, wanted in asked.items():
        _tell(f"list {what}", [lambda wanted=wanted: list(islice(queries.listing(client, "acme", wanted), 50))])  # type: ignore[misc]


def main(events: int) -> None:
    """Print what look-ups and the audit cost in a ledger of so many events."""
    server = Valkey(appendonly="no").start()
    with redis.Redis.from_url(server.url) as client:
        identity = Identity(b"bench")
        before = client.info("memory")["used_memory"]
        load(client, identity, "acme", events)
        print(f"{(client.info('memory')['used_memory'] - before) / events:.0f} bytes an event, {events} events")
        chosen = [queries.event(client, "acme", id) for id in _some(client)]
        known = [text(client.hget(f"er:acme:event:{one.id}", "who")) for one in chosen if one]
        names = [name for who in known for name in trace.names(who)]
        _tell("trace --candidate", [partial(trace.of_candidate, client, "acme", name) for name in names])
        written = [one.registration for one in chosen if one and one.registration]
        _tell("trace --registration", [partial(trace.of_registration, client, "acme", one) for one in written])
        _tell("trace --event", [partial(trace.of_delivery, client, "acme", one) for one in chosen if one])
        client.slowlog_reset()
        _tell("status", [lambda: _status(client)] * 20)
        stop(client, "acme", events // 10)
        _listings(client)
        began = time.perf_counter()
        found = books(client, "acme", Ledger(client, timedelta(seconds=60)).sealer)
        print(f"audit: {time.perf_counter() - began:.1f} s, {len(found.differences)} differences")
        slow = [f"{entry['command'][:60]!r} {entry['duration'] / 1000:.1f} ms" for entry in client.slowlog_get(5)]
        print("slow commands (over 10 ms):", slow or "none")
    server.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
