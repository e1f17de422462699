"""Listings: right with any filter, steady while events move, and no longer a way than the indexes allow.

What is counted is what Redis did, not seconds: `python -m bench.ledger` measures those.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
import redis

from bench.ledger import load, stop
from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from tasks.operator import steering
from tests.commands import command
from tests.pipeline import TENANT, Pipeline
from worker.ledger import queries
from worker.ledger.identity import Identity
from worker.ledger.keys import INDEX_OF
from worker.ledger.queries import Wanted

#: Events that wait for a person: half held, half dead, several pages of each.
STOPPED = 1200


@pytest.fixture
def large(client: "redis.Redis") -> "redis.Redis":
    """A ledger that no single look takes in."""
    load(client, Identity(b"test"), TENANT, 300)
    stop(client, TENANT, STOPPED)
    return client


def some_of_everything(client: "redis.Redis") -> None:
    """Gives a quarter of the synced events other states, with what the scripts would have changed in the indexes."""
    states = (EventState.RECEIVED, EventState.READY, EventState.DISCARDED, EventState.DUPLICATE)
    ids = [id for id in queries.ids(client, TENANT) if client.hget(event_key(id), "state") == b"synced"]
    for number, id in enumerate(ids[::4]):
        state = states[number % len(states)]
        client.hset(event_key(id), mapping={"state": state, "source": [*Source][number % 3]})
        client.hdel(event_key(id), "result")
        client.hincrby(f"er:{TENANT}:counts", "synced", -1)
        client.hincrby(f"er:{TENANT}:counts", state, 1)
        if state in INDEX_OF:
            client.zadd(f"er:{TENANT}:{INDEX_OF[state]}", {id: number})
            client.hset(event_key(id), "reason", [Reason.INTERNAL_ERROR, Reason.UNKNOWN_EXAM][number // 4 % 2])


def event_key(id: str) -> str:
    return f"er:{TENANT}:event:{id}"


def all_events(client: "redis.Redis") -> list[Event]:
    """Every event there is, newest first, without any filter of ours."""
    found = [(id, client.hgetall(event_key(id))) for id in queries.ids(client, TENANT)]
    events = [queries.event_of(TENANT, id, fields, None, None) for id, fields in found]  # type: ignore[arg-type]
    return sorted((event for event in events if event), key=queries.place, reverse=True)


def filters(events: list[Event], chance: random.Random) -> Wanted:
    """Some filters, those that one of the events meets among them."""
    one, other = chance.choice(events), chance.choice(events)
    states: Any = chance.choice(
        [None, None, {one.state}, {one.state}, {EventState.HELD, EventState.DEAD}, set(EventState)]
    )
    since, until = sorted([one.received_at, other.received_at])
    return Wanted(
        None if states is None else frozenset(states),
        chance.choice([None, one.source]),
        chance.choice([None, None, one.reason, other.reason]),
        chance.choice([None, None, since, since - timedelta(microseconds=300)]),
        chance.choice([None, None, until, until + timedelta(microseconds=1)]),
    )


def test_any_filters_find_what_a_look_at_every_event_finds(client: "redis.Redis") -> None:
    load(client, Identity(b"test"), TENANT, 160)
    stop(client, TENANT, 200)
    some_of_everything(client)
    every, chance = all_events(client), random.Random(1)
    for _ in range(120):
        wanted = filters(every, chance)
        expected = [event.id for event in every if wanted.takes(event)]
        assert [event.id for event in queries.listing(client, TENANT, wanted)] == expected, wanted
        assert [one.id for one in queries.listing(client, TENANT, wanted, oldest=True)] == expected[::-1], wanted


def test_a_user_who_may_only_read_our_keys_finds_the_same(large: "redis.Redis", valkey: Any) -> None:
    """SORT reads fields only for those who may read every key."""
    large.acl_setuser("narrow", enabled=True, passwords=["+pw"], keys=["er:*"], categories=["+@all"])
    wanted = Wanted(frozenset([EventState.HELD]), Source.PROV, since=datetime(2026, 1, 1, tzinfo=UTC))
    try:
        with redis.Redis.from_url(valkey.url, username="narrow", password="pw") as narrow:
            for oldest in (False, True):
                theirs = list(queries.listing(narrow, TENANT, wanted, oldest=oldest))
                assert theirs == list(queries.listing(large, TENANT, wanted, oldest=oldest)) != []
    finally:
        large.acl_deluser("narrow")


@pytest.mark.parametrize("oldest", [False, True])
@pytest.mark.parametrize("states", [None, frozenset([EventState.HELD])], ids=["all", "held"])
def test_none_is_skipped_or_repeated_while_others_come_and_go(
    large: "redis.Redis", pipeline: Pipeline, states: Any, oldest: bool
) -> None:
    wanted, shown = Wanted(states), list[str]()
    there = {event.id for event in all_events(large) if wanted.takes(event)}
    went = set()
    for event in queries.listing(large, TENANT, wanted, oldest=oldest):
        shown.append(event.id)
        if len(shown) % 50 == 0:
            pipeline.deliver(f"new {len(shown)}".encode())
        if event.state is EventState.HELD:
            went.add(event.id)
            assert pipeline.ledger.discard(TENANT, event.id, "op", "test")[0]
            if states is None:  # as if it had been pruned
                large.zrem(f"er:{TENANT}:events", event.id)
    assert len(shown) == len(set(shown))
    assert there <= set(shown)
    assert went


def test_events_of_one_moment_are_told_apart_by_id(client: "redis.Redis") -> None:
    stop(client, TENANT, 500)
    for id in list(queries.ids(client, TENANT)):
        client.hset(event_key(id), "received_at", 1000)
        for name in ("events", "held", "dead"):
            client.zadd(f"er:{TENANT}:{name}", {id: 1000}, xx=True)
    found = [event.id for event in queries.listing(client, TENANT, Wanted(reason=Reason.UNKNOWN_EXAM))]
    assert found == sorted(found, reverse=True)
    listed = queries.listing(client, TENANT, Wanted())
    shown = [event.id for event in islice(listed, 250)]
    client.zrem(f"er:{TENANT}:events", *shown[195:205])
    assert len({*shown, *(event.id for event in listed)}) == 500


def test_of_a_ledger_of_an_older_release_a_time_range_finds_all(large: "redis.Redis") -> None:
    """It had `held` and `dead` by when events got there."""
    later = dict.fromkeys(large.zrange(f"er:{TENANT}:held", 0, -1), 2000000000000.0)
    large.zadd(f"er:{TENANT}:held", later)  # type: ignore[arg-type]
    every = [event for event in all_events(large) if event.state is EventState.HELD]
    wanted = Wanted(frozenset([EventState.HELD]), since=every[500].received_at, until=every[100].received_at)
    found = list(queries.listing(large, TENANT, wanted))
    assert {event.id for event in found} == {event.id for event in every if wanted.takes(event)}


def looks(client: "redis.Redis", act: Callable[[], object]) -> tuple[int, int]:
    """How often Redis was asked to look for events while `act` ran, and how many events it gave in all."""
    client.config_resetstat()
    act()
    told: Any = client.info("commandstats")
    return tuple(told.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("sort_ro", "hgetall"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("wanted", "pages"),
    [
        (Wanted(), 1),
        (Wanted(frozenset([EventState.IGNORED])), 0),
        (Wanted(frozenset([EventState.READY])), 0),
        (Wanted(frozenset([EventState.HELD])), 1),
        (Wanted(frozenset([EventState.HELD]), Source.PROV, Reason.WRITES_OFF), 1),
        (Wanted(reason=Reason.WRITES_OFF), 2),
        (Wanted(frozenset([EventState.SYNCED]), since=datetime(2020, 1, 1, tzinfo=UTC)), 1),
        (Wanted(until=datetime(2020, 1, 1, tzinfo=UTC)), 0),
        (Wanted(since=datetime.now(UTC) + timedelta(days=1)), 0),
    ],
)
def test_the_first_fifty_take_a_page_of_the_shortest_index(large: "redis.Redis", wanted: Wanted, pages: int) -> None:
    asked, given = looks(large, lambda: list(islice(queries.listing(large, TENANT, wanted), 50)))
    assert asked <= pages
    assert given <= 2 * 200 + 4


def test_a_walk_ends_with_the_last_event_of_a_final_state(large: "redis.Redis") -> None:
    some = next(queries.listing(large, TENANT, Wanted(frozenset([EventState.HELD]))))
    large.hset(event_key(some.id), "state", "discarded")
    large.hincrby(f"er:{TENANT}:counts", "discarded", 1)
    newest = max(at for _, at in large.zrange(f"er:{TENANT}:events", 0, -1, withscores=True))
    large.zadd(f"er:{TENANT}:events", {some.id: newest + 1})
    found = list[Event]()
    wanted = Wanted(frozenset([EventState.DISCARDED]))
    asked, _ = looks(large, lambda: found.extend(queries.listing(large, TENANT, wanted)))
    assert ([event.id for event in found], asked) == ([some.id], 1)


def test_a_limited_replay_reads_only_what_it_takes(large: "redis.Redis", pipeline: Pipeline) -> None:
    config = pipeline.services.settings.config
    held = Wanted(frozenset([EventState.HELD]))
    oldest = list(islice(queries.listing(large, TENANT, held, oldest=True), 5))
    needless = [one.id for one in oldest if steering.lacks(one, {}) is None]
    options = ("--state", "held", "--limit", "5", "--yes", "--keep-going")
    asked, given = looks(large, lambda: command(config, "replay", *options))
    assert (asked, given) == (1, 201 + len(needless)), "a page, the processes' register, and each that moves"
    moved = [event.id for event in all_events(large) if event.state is EventState.RECEIVED]
    assert sorted(moved) == sorted(needless)
