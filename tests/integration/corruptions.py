"""Ways to corrupt a ledger or a stand-in, each seeded. What is returned is what the audit must name, of which kinds."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import redis
import requests

from sandbox.control import API_KEY, Sandbox
from tests.pipeline import ORG, TENANT
from worker.ledger import trace

WAITING = {"received": "due:process", "ready": "due:sync", "held": "held", "dead": "dead"}
#: The kinds of difference of which one at least must be found.
Kinds = tuple[str, ...]
Corruption = Callable[["Ground"], Kinds]


class Ground:
    """A ledger and a stand-in with something of everything, and a seeded choice of it."""

    def __init__(self, client: "redis.Redis", rhythm: Sandbox, seed: int) -> None:
        self.client: Any = client
        self.rhythm = rhythm
        self.chance = random.Random(seed)

    def key(self, *parts: str) -> str:
        return ":".join(("er", TENANT, *parts))

    def event(self, *states: str) -> str:
        """An event in one of these states; without any, any."""
        fitting = [id for id in self.ids() if not states or self.field(id, "state") in states]
        return self.chance.choice(fitting)

    def ids(self) -> list[str]:
        return [id.decode() for id in self.client.zrange(self.key("events"), 0, -1)]

    def field(self, id: str, name: str) -> str:
        return (self.client.hget(self.key("event", id), name) or b"").decode()

    def set(self, id: str, name: str, value: str) -> None:
        self.client.hset(self.key("event", id), name, value)

    def place(self, kind: str) -> str:
        """Some key of a kind."""
        return str(self.chance.choice(sorted(self.client.keys(self.key(kind, "*")))).decode())

    def written(self) -> str:
        """A recorded event that wrote last to its registration: what a pruned one wrote is no more looked at."""
        records = sorted(self.client.keys(self.key("registration", "*")))
        last = [event.decode() for name in records if (event := self.client.hget(name, "event"))]
        return self.chance.choice([id for id in last if id in self.ids()])

    def record(self, id: str) -> str:
        return self.key("registration", self.field(id, "registration"))

    def delivery(self, id: str) -> tuple[str, str]:
        return self.key("delivery", self.field(id, "delivery")), "v:" + self.field(id, "version")


def grow_old(client: Any, id: str) -> None:
    """No corruption: the event was received long ago, wherever the ledger says when."""
    received, who = (value.decode() for value in client.hmget(f"er:{TENANT}:event:{id}", "received_at", "who"))
    for name in trace.names(who):
        bucket = f"er:{TENANT}:names:{trace.bucket(name)}"
        assert client.lrem(bucket, 1, trace.place(name, int(received))) == 1
        client.rpush(bucket, trace.place(name, 1000))
    client.hset(f"er:{TENANT}:event:{id}", "received_at", 1000)
    client.zadd(f"er:{TENANT}:events", {id: 1000})


def lose_an_event(at: Ground) -> Kinds:
    at.client.delete(at.key("event", at.event()))
    return ("event",)


def take_an_event_off_the_books(at: Ground) -> Kinds:
    at.client.zrem(at.key("events"), at.event())
    return ("event",)


def put_a_stranger_on_the_books(at: Ground) -> Kinds:
    at.client.zadd(at.key("events"), {"evt_stranger": 1_700_000_000_000})
    return ("event",)


def give_it_another_state(at: Ground) -> Kinds:
    id = at.event()
    at.set(
        id, "state", at.chance.choice(sorted({*WAITING, "synced", "duplicate", "ignored"} - {at.field(id, "state")}))
    )
    return ("index", "count", "event", "payload", "delivery", "registration")


def give_it_no_state(at: Ground) -> Kinds:
    at.set(at.event(), "state", "lost")
    return ("event",)


def garble_a_field(at: Ground) -> Kinds:
    at.set(at.event(), at.chance.choice(["source", "receipts", "received_at"]), "x")
    return ("event",)


def move_it_in_time(at: Ground) -> Kinds:
    at.client.zincrby(at.key("events"), 1, at.event())
    return ("event",)


def take_it_out_of_its_index(at: Ground) -> Kinds:
    id = at.event(*WAITING)
    at.client.zrem(at.key(WAITING[at.field(id, "state")]), id)
    return ("index",)


def put_it_into_another_index(at: Ground) -> Kinds:
    id = at.event()
    others = sorted({*WAITING.values()} - {WAITING.get(at.field(id, "state"), "")})
    at.client.zadd(at.key(at.chance.choice(others)), {id: 1})
    return ("index",)


def put_a_stranger_into_an_index(at: Ground) -> Kinds:
    at.client.zadd(at.key(at.chance.choice(sorted(WAITING.values()))), {"evt_stranger": 1})
    return ("index",)


def lose_a_payload(at: Ground) -> Kinds:
    at.client.delete(at.key("payload", at.event(*WAITING)))
    return ("payload",)


def garble_a_payload(at: Ground) -> Kinds:
    name = at.key("payload", at.event(*WAITING))
    stored = at.client.get(name)
    at.client.set(name, stored[: len(stored) // 2])
    return ("payload",)


def keep_a_payload_for_ever(at: Ground) -> Kinds:
    at.client.persist(at.key("payload", at.event("synced", "duplicate", "discarded")))
    return ("payload",)


def leave_a_payload_behind(at: Ground) -> Kinds:
    at.client.set(at.key(at.chance.choice(["payload", "history", "outcome"]), "evt_stranger"), b"\x01")
    return ("payload", "history", "outcome")


def keep_an_outcome(at: Ground) -> Kinds:
    at.client.set(at.key("outcome", at.event("synced", "held", "dead", "received")), b"\x01")
    return ("outcome",)


def lose_a_history(at: Ground) -> Kinds:
    id = at.event("synced", "duplicate", "held", "dead", "ready")
    at.client.delete(at.key("history", id))
    at.client.hdel(at.key("event", id), "history")
    return ("history",)


def forget_the_reason(at: Ground) -> Kinds:
    id = at.event("held", "dead")
    at.client.hdel(at.key("event", id), "reason")
    return ("event",)


def give_another_reason(at: Ground) -> Kinds:
    id = at.event("held", "dead")
    at.set(id, "reason", "registration_locked")
    return ("count",)


def garble_the_result(at: Ground) -> Kinds:
    at.set(at.event("synced"), "result", "guessed")
    return ("event",)


def miscount(at: Ground) -> Kinds:
    names = sorted(name.decode() for name in at.client.hgetall(at.key("counts")))
    at.client.hincrby(at.key("counts"), at.chance.choice(names), at.chance.choice([-2, -1, 1, 5]))
    return ("count", "conservation")


def count_under_another_reason(at: Ground) -> Kinds:
    return _count_elsewhere(at, at.chance.choice(["held:", "dead:"]))


def count_under_another_state(at: Ground) -> Kinds:
    return _count_elsewhere(at, "duplicate", "discarded", "superseded", "synced")


def _count_elsewhere(at: Ground, *prefixes: str) -> Kinds:
    counts = sorted(map(bytes.decode, at.client.hgetall(at.key("counts"))))
    fitting = [name for name in counts if name.startswith(prefixes) and "synced:" not in name]
    one, other = at.chance.sample(fitting, 2)
    at.client.hincrby(at.key("counts"), one, 1)
    at.client.hincrby(at.key("counts"), other, -1)
    return ("count",)


def lose_the_counts(at: Ground) -> Kinds:
    at.client.delete(at.key("counts"))
    return ("conservation",)


def lose_a_version(at: Ground) -> Kinds:
    name, version = at.delivery(at.event("synced", "ready", "superseded"))
    at.client.hdel(name, version)
    return ("delivery",)


def lead_a_version_elsewhere(at: Ground) -> Kinds:
    id = at.event("synced", "ready", "superseded")
    name, version = at.delivery(id)
    others = [one for one in at.ids() if at.field(one, "delivery") != at.field(id, "delivery")]
    at.client.hset(name, version, at.chance.choice(others))
    return ("delivery",)


def lead_a_version_to_nobody(at: Ground) -> Kinds:
    name, version = at.delivery(at.event("synced", "ready", "superseded"))
    at.client.hset(name, version, "evt_stranger")
    return ("delivery",)


def apply_another_version(at: Ground) -> Kinds:
    at.client.hset(at.delivery(at.event("synced"))[0], "applied", "o-never")
    return ("delivery",)


def lose_a_delivery(at: Ground) -> Kinds:
    at.client.delete(at.delivery(at.event("synced", "ready"))[0])
    return ("delivery",)


def bring_another_version(at: Ground) -> Kinds:
    at.set(at.event("synced", "ready"), at.chance.choice(["version", "delivery"]), "o-never")
    return ("delivery",)


def give_a_registration_to_who_is_done(at: Ground) -> Kinds:
    at.client.hset(at.place("registration"), "owner", at.event("synced", "held", "dead", "received"))
    return ("registration", "owner")


def take_a_registration_away(at: Ground) -> Kinds:
    owned = [name for name in at.client.keys(at.key("registration", "*")) if at.client.hexists(name, "owner")]
    at.client.hdel(at.chance.choice(sorted(owned)), "owner")
    return ("owner",)


def lose_an_intent(at: Ground) -> Kinds:
    intended = [id for id in at.ids() if at.field(id, "intent")]
    at.client.hdel(at.key("event", at.chance.choice(intended)), "intent")
    return ("registration",)


def lose_what_was_written(at: Ground) -> Kinds:
    at.client.delete(at.record(at.written()))
    return ("registration",)


def lead_a_registration_elsewhere(at: Ground) -> Kinds:
    id = at.written()
    other = at.chance.choice([one for one in at.ids() if at.field(one, "registration") != at.field(id, "registration")])
    at.client.hset(at.record(id), "event", other)
    return ("registration",)


def lead_a_registration_to_nobody(at: Ground) -> Kinds:
    at.client.hset(at.record(at.written()), "event", "evt_stranger")
    return ("registration",)


def sync_it_elsewhere(at: Ground) -> Kinds:
    at.set(at.written(), "registration", "reg-never")
    return ("registration",)


def lose_a_name(at: Ground) -> Kinds:
    at.client.lpop(at.place("names"))
    return ("names",)


def lose_a_bucket(at: Ground) -> Kinds:
    at.client.delete(at.place("names"))
    return ("names",)


def name_nobody(at: Ground) -> Kinds:
    at.client.rpush(at.place("names"), 1_700_000_000_000 * 1024)
    return ("names",)


def give_it_another_name(at: Ground) -> Kinds:
    id = at.event("synced", "held", "duplicate", "discarded")
    at.set(id, "who", at.field(id, "who")[12:] + "abcdefghijkl")
    return ("names",)


def write_over_a_key(at: Ground) -> Kinds:
    at.client.set(at.place(at.chance.choice(["event", "delivery", "registration", "names"])), "x")
    return ("event", "delivery", "registration", "owner", "names")


def write_something_else_into_what_was_written(at: Ground) -> Kinds:
    at.client.hset(
        at.record(at.written()), "values", '{"status": "no show", "score": "1.00", "exam_date": "2026-05-04T12:30:00Z"}'
    )
    return ("rhythm",)


def edit_rhythm(at: Ground) -> Kinds:
    change = at.chance.choice(
        [{"status": "cancelled"}, {"score": 12.5}, {"exam_date": "2025-01-01T00:00:00Z"}, {"score": None}]
    )
    at.rhythm.edit(ORG, at.field(at.written(), "registration"), **change)
    return ("rhythm",)


def delete_from_rhythm(at: Ground) -> Kinds:
    url = f"{at.rhythm.url}/examRegistrations/{ORG}/{at.field(at.written(), 'registration')}"
    requests.delete(url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=10).raise_for_status()
    return ("rhythm",)


CORRUPTIONS: Sequence[Corruption] = [
    value
    for name, value in list(globals().items())
    if not name.startswith("_") and getattr(value, "__annotations__", {}).get("return") == Kinds
]
