"""Who, where to, what became of it: found from a candidate, a registration or an event; and forgotten on request."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from tests.events import certiverse, registration
from tests.integration.corruptions import grow_old
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from worker.ledger import decisions, trace
from worker.ledger.audit.books import books
from worker.ledger.identity import Identity

FULL = os.environ.get("EXAMRELAY_FULL") == "1"
ADA = ("stu-1", "ada@example.org", "c-1")
BOB = {"student": "stu-2", "email": "bob@example.org"}


def ids(pipeline: Pipeline, value: str) -> list[str]:
    """The events of a candidate, as `trace --candidate` finds them."""
    at = pipeline.services
    return trace.of_candidate(at.redis, TENANT, trace.name_of(at.identity, TENANT, value))


def holds(pipeline: Pipeline) -> None:
    assert books(pipeline.services.redis, TENANT, pipeline.ledger.sealer).differences == ()


@pytest.mark.parametrize("value", [*ADA, "ADA@Example.ORG", " stu-1 "])
def test_a_candidate_is_found_by_student_id_e_mail_and_platform_id(pipeline: Pipeline, value: str) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    (first,) = pipeline.run(certiverse())
    (held,) = pipeline.run(certiverse("dlv-2", exam="CERT-9"))
    pipeline.run(certiverse("dlv-3", candidateId="c-2", exam="CERT-9", **BOB))
    assert set(ids(pipeline, value)) >= {first.id, held.id}
    holds(pipeline)


def test_another_candidate_and_another_tenants_candidate_are_not_found(pipeline: Pipeline) -> None:
    pipeline.run(certiverse())
    assert ids(pipeline, "stu-2") == ids(pipeline, "STU-1") == []
    identity = pipeline.services.identity
    assert trace.name_of(identity, TENANT, "stu-1") != trace.name_of(identity, "other", "stu-1")


def test_without_the_index_key_nobody_can_tell_whose_a_name_is() -> None:
    one, other = (trace.name_of(Identity(key), TENANT, "stu-1") for key in (b"a" * 32, b"b" * 32))
    assert one != other


def test_names_that_stand_in_one_place_are_told_apart(pipeline: Pipeline, client: "redis.Redis") -> None:
    wanted = {}
    for name in ("abcdefghijkl", "abcdzzzzzzzz"):
        id = pipeline.deliver(certiverse(f"dlv-{name}"))
        pipeline.ledger.claim(TENANT, name, 1, 0)
        ignored = decisions.drop(id, EventState.IGNORED, "not a result")
        pipeline.ledger.apply(TENANT, name, [decisions.about(ignored, name)])
        wanted[name] = [id]
    assert {name: trace.of_candidate(client, TENANT, name) for name in wanted} == wanted
    assert client.keys(f"er:{TENANT}:names:*") == [f"er:{TENANT}:names:ab".encode()]
    holds(pipeline)


def test_an_event_is_found_whatever_became_of_it(pipeline: Pipeline) -> None:
    """Held, dead and dropped events are a person's, too; but a body that could not be read names nobody."""
    pipeline.rhythm.seed(ORG, [registration()])
    bodies = [
        certiverse(),
        json.dumps(json.loads(certiverse()), indent=1).encode(),
        certiverse(passed=False, score=10, rescore=False),
        certiverse("dlv-old", completed="2020-01-01T00:00:00Z"),
        b"{}",
    ]
    events = [pipeline.run(body)[0] for body in bodies]
    states = [event.reason or event.state for event in events]
    assert states[1:] == ["duplicate", Reason.RESULT_CONFLICT, Reason.RESULT_ANCIENT, Reason.INVALID_PAYLOAD]
    assert set(ids(pipeline, "stu-1")) == {event.id for event in events[:4]}


def test_a_registration_leads_to_those_who_wrote_it_and_those_who_tried(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    (wrote,) = pipeline.run(certiverse())
    (rescored,) = pipeline.run(certiverse(passed=False, score=10, rescore=True))
    (settled,) = pipeline.run(certiverse("dlv-2", score=50, completed="2026-05-05T00:00:00Z"))
    assert (rescored.result, settled.reason) == ("written", Reason.REGISTRATION_SETTLED)
    found = trace.of_registration(pipeline.services.redis, TENANT, "reg-1")
    assert sorted(found) == sorted([wrote.id, rescored.id, settled.id])
    (record,) = trace.registrations(pipeline.services.redis, TENANT, ["reg-1"])
    assert (record["event"], record["owner"], record["sys_version"]) == (rescored.id, None, 3)
    holds(pipeline)


def test_a_registration_leads_to_an_event_whose_write_was_refused(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    pipeline.rhythm.fault("status", kind="patch", status=400)
    (dead,) = pipeline.run(certiverse())
    assert dead.state == EventState.DEAD
    assert trace.of_registration(pipeline.services.redis, TENANT, "reg-1") == [dead.id]
    holds(pipeline)


def test_an_event_leads_to_the_others_of_its_delivery_and_to_their_copies(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    copy = json.dumps(json.loads(certiverse()), indent=1).encode()
    first, second, rescored = pipeline.run(certiverse(), copy, certiverse(score=60, rescore=True))
    pipeline.run(certiverse("dlv-2", exam="CERT-9"))
    for event in (first, second, rescored):
        found = trace.of_delivery(pipeline.services.redis, TENANT, event)
        assert set(found) == {first.id, second.id, rescored.id}


def test_a_replayed_event_goes_by_the_names_that_it_has_then(pipeline: Pipeline) -> None:
    (held,) = pipeline.run(certiverse(exam="CERT-9"))
    for _ in range(3):
        pipeline.ledger.replay(TENANT, held.id, "op", {})
        pipeline.process()
        pipeline.sync()
    assert ids(pipeline, "stu-1") == [held.id]
    holds(pipeline)


def test_what_is_pruned_is_not_found_and_leaves_no_name(pipeline: Pipeline, client: "redis.Redis") -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    (event,) = pipeline.run(certiverse())
    grow_old(client, event.id)
    assert ids(pipeline, "stu-1") == [event.id]
    assert pipeline.ledger.sweep(TENANT, timedelta(seconds=5), 10)[1] == 1
    assert ids(pipeline, "stu-1") == []
    assert client.keys(f"er:{TENANT}:names:*") == []
    holds(pipeline)


def test_the_ledger_names_nobody_in_the_clear(
    client: "redis.Redis", rhythm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a payload key, neither a key's name nor a value tells who it is."""
    monkeypatch.setenv("EXAMRELAY_PAYLOAD_KEYS", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    with pipeline_at(tmp_path, rhythm) as pipeline:
        rhythm.seed(ORG, [registration()])
        pipeline.run(certiverse(), certiverse("dlv-2", exam="CERT-9"))
        assert len(ids(pipeline, "ada@example.org")) == 2
    everything = b"".join(key + (client.dump(key) or b"") for key in client.keys("*"))
    assert everything
    assert not [
        value for value in (b"stu-1", b"ada@", b'"ada"', b"c-1\n", b"passed", b"82.5") if value in everything.lower()
    ]


def test_a_person_is_forgotten_and_the_books_still_balance(pipeline: Pipeline, client: "redis.Redis") -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    (synced,) = pipeline.run(certiverse())
    (held,) = pipeline.run(certiverse("dlv-2", exam="CERT-9"))
    (other,) = pipeline.run(certiverse("dlv-4", exam="CERT-9", **BOB))
    waits = pipeline.event(pipeline.deliver(certiverse("dlv-3")))
    pipeline.process()
    for id in ids(pipeline, "stu-1"):
        assert pipeline.ledger.forget(TENANT, id, "op")[0]
    for event, state in ((synced, "synced"), (held, "discarded"), (waits, "discarded")):
        after = pipeline.event(event.id)
        assert (after.state, after.reason, after.detail) == (state, Reason.FORGOTTEN, None)
        assert [(entry.move, entry.by) for entry in after.history][-1] == ("forget", "op")
        assert pipeline.ledger.payload(TENANT, event.id) is None
    assert ids(pipeline, "stu-1") == ids(pipeline, "ada@example.org") == []
    assert pipeline.event(other.id).state == EventState.HELD
    assert pipeline.ledger.payload(TENANT, other.id) is not None
    kept = client.hgetall(f"er:{TENANT}:registration:reg-1")
    assert not [name for name in kept if name.startswith(b"values")]
    assert pipeline.event(synced.id).result == "written", "what became of it is kept"
    holds(pipeline)


def test_what_is_forgotten_does_not_come_back_when_it_is_delivered_again(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    (event,) = pipeline.run(certiverse())
    pipeline.ledger.forget(TENANT, event.id, "op")
    (again,) = pipeline.run(certiverse())
    assert (again.receipts, again.state) == (2, EventState.SYNCED)
    assert pipeline.ledger.payload(TENANT, event.id) is None
    assert ids(pipeline, "stu-1") == []
    holds(pipeline)


def test_an_event_that_is_being_written_is_not_forgotten_under_the_writers_hands(pipeline: Pipeline) -> None:
    pipeline.deliver(certiverse())
    pipeline.process()
    ((job,),) = pipeline.read("token", pipeline.ledger.claim(TENANT, "token", 1, 0))[1:]
    id = job.work.id
    plan = {"id": id, "registration": "reg-1", "rev": "0", "delivery_rev": job.work.delivery_record.rev}
    intent = json.dumps({"registration": "reg-1", "base": "1", "values": "{}"})
    assert pipeline.ledger.intend(TENANT, "token", [plan | {"intent": intent}]) == ["ok"]
    assert pipeline.ledger.forget(TENANT, id, "op") == (False, "being written")
    assert pipeline.event(id).state == EventState.READY
    pipeline.due_now()
    assert pipeline.ledger.forget(TENANT, id, "op") == (True, "discarded")
    holds(pipeline)


@pytest.mark.timeout(1500)
def test_a_look_up_takes_less_than_100_ms_among_a_million_events(pipeline: Pipeline) -> None:
    """The full size only with EXAMRELAY_FULL=1."""
    from bench.ledger import load  # what only this test needs

    load(pipeline.services.redis, pipeline.services.identity, TENANT, 1_000_000 if FULL else 10_000)
    pipeline.rhythm.seed(ORG, [registration()])
    (event,) = pipeline.run(certiverse())
    for value in (*ADA, "stu-nobody"):
        began = time.perf_counter()
        found = ids(pipeline, value)
        took = time.perf_counter() - began
        assert found == ([event.id] if value in ADA else [])
        assert took < 0.1, f"{value}: {took * 1000:.0f} ms"
