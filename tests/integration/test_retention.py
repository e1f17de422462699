"""How long each class of what is kept lives: nothing that is personal stays for ever by itself."""

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from tasks.sweep import sweep_tenants
from tests.events import certiverse, registration
from tests.integration.corruptions import grow_old
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from worker.ledger import queries, sessions, strays
from worker.ledger.audit.books import books
from worker.ledger.client import text
from worker.ledger.keys import MALFORMED, SESSION, SIGN_IN_FAILURES, STRAYS, STRAYS_AT

DAY = 24 * 3600
#: Keys that do not expire, and what else bounds what is in them.
LASTING = {
    "event": "pruned by the sweep, 400 days after receipt",
    "names": "with the event",
    "events": "ids, with the event",
    "payload": "only of events that are not final",
    "due:process": "ids",
    "due:sync": "ids",
    "held": "ids",
    "dead": "ids",
    "counts": "numbers",
    "totals": "numbers",
    "gate": "times",
    "moved": "a time",
    "hint": "a time",
    "slots": "tokens",
    "refused": "pruned by the sweep",
}


@pytest.fixture
def brief(
    client: "redis.Redis", rhythm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    """A ledger that keeps payloads for two days, what nobody decides for three, strays for four."""
    for name, days in (("PAYLOAD", 2), ("STOPPED", 3), ("STRAY", 4)):
        monkeypatch.setenv(f"EXAMRELAY_{name}_DAYS", str(days))
    with pipeline_at(tmp_path, rhythm) as built:
        rhythm.seed(ORG, [registration()])
        yield built
    assert books(client, TENANT).differences == ()


def days_left(client: "redis.Redis", name: str) -> float:
    return round(client.ttl(name) / DAY, 2)


def one_of_each(pipeline: Pipeline) -> None:
    """Events in several states, what they leave behind, and a refusal."""
    pipeline.rhythm.seed(ORG, [registration(), registration("reg-2", sys_locked=True)])
    pipeline.run(certiverse(), certiverse() + b" ", certiverse(score=60, rescore=True), certiverse("dlv-2", "reg-2"))
    (held,) = pipeline.run(certiverse("dlv-3", exam="CERT-9"))
    pipeline.run(b"no JSON")
    pipeline.ledger.note_look(TENANT, held.id, "op", "payload")
    pipeline.ledger.discard(TENANT, held.id, "op", "a test")
    pipeline.services.redis.lpush(
        f"er:{TENANT}:refused:certiverse", f"{queries.redis_now(pipeline.services.redis)} 401"
    )


def test_every_key_of_a_tenant_expires_or_is_bounded_by_something_else(pipeline: Pipeline) -> None:
    one_of_each(pipeline)
    client = pipeline.services.redis
    lasting, states = set(), dict[str, str]()
    for name in map(text, client.scan_iter(f"er:{TENANT}:*")):
        if client.ttl(name) == -1:
            kind, _, id = name.removeprefix(f"er:{TENANT}:").partition(":")
            lasting.add(f"{kind}:{id}" if kind == "due" else kind)
            if kind == "payload":
                states[id] = pipeline.event(id).state
    assert lasting <= LASTING.keys()
    assert states
    assert not {state for state in states.values() if EventState(state).final}


def test_a_payload_is_kept_as_long_as_configured_and_identity_for_400_days(brief: Pipeline) -> None:
    client = brief.services.redis
    (event,) = brief.run(certiverse())
    assert days_left(client, f"er:{TENANT}:payload:{event.id}") == 2
    for name in (f"delivery:{event.delivery}", "registration:reg-1"):
        assert days_left(client, f"er:{TENANT}:{name}") == 400


@pytest.mark.parametrize(("days", "seconds"), [("", 30 * DAY), ("0", -2)])
def test_without_a_setting_a_payload_is_kept_for_30_days_and_with_0_not_at_all(
    days: str, seconds: int, client: "redis.Redis", rhythm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if days:
        monkeypatch.setenv("EXAMRELAY_PAYLOAD_DAYS", days)
    with pipeline_at(tmp_path, rhythm) as pipeline:
        rhythm.seed(ORG, [registration()])
        (event,) = pipeline.run(certiverse())
        assert (event.state, event.result) == (EventState.SYNCED, "written")
        assert client.ttl(f"er:{TENANT}:payload:{event.id}") == seconds


def test_what_nobody_decides_in_time_is_discarded_by_the_sweep(brief: Pipeline) -> None:
    client = brief.services.redis
    nowhere = certiverse("dlv-9", "reg-9", student="stu-9", email="nobody@example.org")
    old = [brief.run(body)[0] for body in (certiverse("dlv-8", exam="CERT-9"), b"old", nowhere)]
    young = [brief.run(body)[0] for body in (certiverse("dlv-7", exam="CERT-9"), b"young")]
    assert [event.state for event in old] == ["held", "dead", "ready"]
    before = int(queries.redis_now(client).timestamp() * 1000) - 3 * DAY * 1000 - 1000
    for index, event in (("held", old[0]), ("dead", old[1])):
        client.zadd(f"er:{TENANT}:{index}", {event.id: before})
    sweep_tenants(brief.services)
    assert [brief.event(event.id).state for event in old] == ["discarded", "discarded", "ready"]
    assert [brief.event(event.id).state for event in young] == ["held", "dead"]
    gone = brief.event(old[0].id)
    assert (gone.reason, gone.detail) == (None, "nobody decided in time")
    assert (gone.history[-1].move, gone.history[-1].by) == ("discard", "sweep")
    assert days_left(client, f"er:{TENANT}:payload:{gone.id}") == 2


def test_unless_it_is_configured_what_waits_for_a_person_waits(pipeline: Pipeline) -> None:
    (held,) = pipeline.run(certiverse(exam="CERT-9"))
    grow_old(pipeline.services.redis, held.id)
    pipeline.services.redis.zadd(f"er:{TENANT}:held", {held.id: 1000})
    sweep_tenants(pipeline.services)
    assert pipeline.event(held.id).state is EventState.HELD
    assert pipeline.ledger.payload(TENANT, held.id) == certiverse(exam="CERT-9")


def test_rhythm_s_words_go_with_the_decision_and_values_when_identity_does(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    pipeline.rhythm.fault("status", kind="patch", status=409, body={"message": "Ada Lovelace is not there"})
    (dead,) = pipeline.run(certiverse())
    assert dead.reason is Reason.MISSING_REFERENCE
    assert "Ada" in (pipeline.ledger.words(TENANT, dead.id) or "")
    pipeline.ledger.discard(TENANT, dead.id, "op", "a test")
    assert pipeline.ledger.words(TENANT, dead.id) is None


def test_old_strays_entries_that_are_no_messages_and_refusals_go_and_young_ones_stay(brief: Pipeline) -> None:
    client, sealer = brief.services.redis, brief.ledger.sealer
    now = int(queries.redis_now(client).timestamp() * 1000)
    bodies = [os.urandom(300) for _ in range(300)]  # small ones Redis would give all at once
    ids = [strays.keep(client, sealer, "no such tenant", "task", body) for body in bodies]
    for number, id in enumerate(ids):
        at = now - (4 * DAY * 1000 + 1000 if number % 2 else 3 * DAY * 1000)
        client.hset(STRAYS, id, re.sub(rb"^\d+", b"%d" % at, client.hget(STRAYS, id) or b""))
    client.delete(STRAYS_AT)  # an earlier release kept them without this order
    for days in (5, 4.1, 3, 0):
        entry = strays.parked(client, sealer, f"garbage {days}".encode())
        client.lpush(MALFORMED, re.sub(rb"^\d+", b"%d" % (now - days * DAY * 1000), entry))
        at = queries.redis_now(client) - timedelta(days=days)
        client.lpush(f"er:{TENANT}:refused:certiverse", f"{at.isoformat(timespec='seconds')} 401 bad credentials")
    for _ in range(60):  # a pass looks at a page
        sweep_tenants(brief.services)
    assert {stray.id for stray in strays.page(client, 300)[0]} == set(ids[::2])
    assert strays.malformed(client, sealer) == [b"garbage 0", b"garbage 3"]
    assert len(queries.refusals(client, TENANT, "certiverse")) == 2  # type: ignore[arg-type]
    acts = strays.acts(client)
    assert sum(" sweep prune stray_" in act for act in acts) == 150
    assert sum(f" sweep prune {strays.EVERY_ENTRY}." in act for act in acts) == 2


def test_what_an_earlier_release_parked_is_read_and_stays(brief: Pipeline) -> None:
    client, sealer = brief.services.redis, brief.ledger.sealer
    client.lpush(MALFORMED, sealer.seal(b"garbage", MALFORMED))
    sweep_tenants(brief.services)
    assert strays.malformed(client, sealer) == [b"garbage"]


def test_a_full_redis_stops_no_sweep(brief: Pipeline) -> None:
    """Deleting is allowed then, and noting it is not: what is left is for a later pass."""
    client = brief.services.redis
    id = strays.keep(client, brief.ledger.sealer, "no such tenant", "task", b"stray")
    client.hset(STRAYS, id, re.sub(rb"^\d+", b"1", client.hget(STRAYS, id) or b""))
    client.zadd(STRAYS_AT, {id: 1})
    client.config_set("maxmemory", 1)
    try:
        sweep_tenants(brief.services)
    finally:
        client.config_set("maxmemory", 0)
    sweep_tenants(brief.services)
    assert queries.stray_count(client) == 0


def test_a_session_an_invitation_and_a_count_of_failures_expire(client: "redis.Redis") -> None:
    token, code = sessions.begin(client, "max"), sessions.invite(client, "max")
    sessions.failed(client, "max")
    left = {text(name).rpartition(".")[0] + ".": client.ttl(name) for name in client.scan_iter("er:console.*")}
    assert left == {SESSION: 12 * 3600, "er:console.once.": 3600, SIGN_IN_FAILURES: 900}
    assert token
    assert code
