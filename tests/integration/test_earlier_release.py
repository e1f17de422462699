"""A ledger that the release before this one has written: two tasks, and a stored outcome between them."""

from schemas.event import EventState
from tests.events import certiverse
from tests.pipeline import ORG, TENANT, Pipeline
from tests.stages import (
    DUPLICATE,
    INTENDED,
    ORIGINAL,
    SENT,
    WRITTEN,
    again,
    begun,
    drain,
    go_on,
    on,
    replay,
    scores,
    standing,
    stands,
)
from worker.ledger.audit.books import books


def ready(pipeline: Pipeline, body: bytes = ORIGINAL) -> str:
    """An event as that release left it when it had prepared it."""
    id, sealer = pipeline.deliver(body), pipeline.ledger.sealer
    pipeline.process()
    outcome = b'2{"source":"certiverse","delivery":"dlv-1","exam_codes":["CERT-1"],"candidate":{}}'
    pipeline.services.redis.set(f"er:{TENANT}:outcome:{id}", sealer.seal(outcome, id))
    pipeline.services.redis.set(f"er:{TENANT}:hint:sync", 1)
    pipeline.services.redis.zadd(f"er:{TENANT}:slots:sync", {"its task": 2**52})
    return id


def read_differently(pipeline: Pipeline, id: str) -> str:
    """As if the release before had seen another meaning in the payload. Returns the version that we see in it."""
    redis, event = pipeline.services.redis, pipeline.event(id)
    delivery = f"er:{TENANT}:delivery:{event.delivery}"
    redis.hset(f"er:{TENANT}:event:{id}", "version", "o-another")
    redis.hdel(delivery, f"v:{event.version}")
    redis.hset(delivery, "v:o-another", id)
    assert event.version
    return event.version


def balanced(pipeline: Pipeline) -> None:
    assert books(pipeline.services.redis, TENANT, pipeline.ledger.sealer).differences == ()


def test_what_it_had_prepared_is_read_from_its_payload_and_nothing_of_the_outcome_stays(open_one: Pipeline) -> None:
    id = ready(open_one)
    balanced(open_one)
    assert stands(on(open_one, id)) == WRITTEN
    assert scores(open_one) == [60]
    assert open_one.services.redis.exists(f"er:{TENANT}:outcome:{id}") == 0
    balanced(open_one)


def test_what_it_was_about_to_write_when_it_ended_is_settled_by_reading(open_one: Pipeline) -> None:
    id = ready(open_one)
    begun(open_one, SENT)
    drain(open_one)
    assert stands(open_one.event(id)) == WRITTEN
    assert scores(open_one) == [60]


def test_a_held_event_and_one_that_is_forgotten_keep_no_outcome(pipeline: Pipeline) -> None:
    stopped, erased = ready(pipeline, certiverse(exam="CERT-9")), ready(pipeline, certiverse("dlv-2"))
    assert pipeline.ledger.forget(TENANT, erased, "op")[0]
    go_on(pipeline)
    assert pipeline.event(stopped).state is EventState.HELD
    assert pipeline.services.redis.keys(f"er:{TENANT}:outcome:*") == []


def test_a_result_that_we_read_differently_is_deduplicated_anew_and_written_once(open_one: Pipeline) -> None:
    id = ready(open_one)
    version = read_differently(open_one, id)
    event = on(open_one, id)
    assert (stands(event), event.version) == (WRITTEN, version)
    assert [entry.move for entry in event.history] == ["record", "prepare", "prepare", "intend", "settle"]
    (copy,) = open_one.run(again(ORIGINAL))
    assert stands(copy) == DUPLICATE, "by the version as we read it"
    assert scores(open_one) == [60]
    balanced(open_one)


def test_a_result_that_we_read_like_another_one_is_a_duplicate_of_that(open_one: Pipeline) -> None:
    id = ready(open_one)
    read_differently(open_one, id)
    copy = open_one.deliver(again(ORIGINAL))
    open_one.process()
    go_on(open_one)
    assert sorted(standing(open_one, id, copy)) == sorted([WRITTEN, DUPLICATE])
    assert scores(open_one) == [60]
    balanced(open_one)


def test_a_write_that_may_be_in_rhythm_keeps_the_version_that_it_was_planned_for(open_one: Pipeline) -> None:
    """The next try reads first. What it finds is that version's; the payload says something else by now."""
    id = ready(open_one)
    read_differently(open_one, id)
    redis, event = open_one.services.redis, f"er:{TENANT}:event:{id}"
    redis.hset(event, "intent", '{"registration": "reg-1", "base": "1", "values": "{\\"score\\": \\"60\\"}"}')
    redis.hset(event, "registration", "reg-1")
    redis.hset(f"er:{TENANT}:registration:reg-1", "owner", id)
    open_one.rhythm.edit(ORG, "reg-1", score=60)
    found = on(open_one, id)
    assert (stands(found), found.version) == (WRITTEN, "o-another")
    assert scores(open_one) == [60]
    balanced(open_one)


def test_a_write_that_never_came_is_made_by_what_we_read_now(open_one: Pipeline) -> None:
    id = ready(open_one)
    begun(open_one, INTENDED)
    drain(open_one)
    assert stands(open_one.event(id)) == WRITTEN
    assert scores(open_one) == [60]


def test_a_payload_that_we_refuse_keeps_what_it_was_about_to_write(open_one: Pipeline) -> None:
    """It waits for a person, and a replay reads first whether that was written."""
    id = ready(open_one)
    begun(open_one, SENT)
    redis, sealer = open_one.services.redis, open_one.ledger.sealer
    payload = redis.get(f"er:{TENANT}:payload:{id}")
    redis.set(f"er:{TENANT}:payload:{id}", sealer.seal(b"{}", id))
    assert open_one.ledger.sealer.open(payload or b"", id) == ORIGINAL
    assert stands(on(open_one, id)) == (EventState.DEAD, "invalid_payload")
    assert redis.hexists(f"er:{TENANT}:event:{id}", "doubt")
    redis.set(f"er:{TENANT}:payload:{id}", payload or b"")
    assert stands(replay(open_one, id)) == WRITTEN
    assert scores(open_one) == [60]
