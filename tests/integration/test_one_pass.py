"""One pass: a result goes from its claim to Rhythm's answer in one task, also one that had to wait before."""

import json

from schemas.event import EventState, Reason
from tests.events import certiverse
from tests.pipeline import ORG, TENANT, Pipeline
from tests.stages import (
    DUPLICATE,
    ORIGINAL,
    RESCORE,
    SUPERSEDED,
    WRITTEN,
    again,
    drain,
    go_on,
    held,
    kinds,
    on,
    replay,
    scores,
    seed,
    standing,
    stands,
)
from worker.ledger.audit.books import books
from worker.queues import HINT_QUEUE

AWAY = Reason.RHYTHM_UNAVAILABLE


def hints(pipeline: Pipeline) -> int:
    """How many hints were ever sent."""
    return int(pipeline.services.redis.get("er:hints") or 0)


def test_one_hint_one_task_and_two_calls_bring_a_batch_to_rhythm(pipeline: Pipeline) -> None:
    events = pipeline.run(*seed(pipeline, 5))
    assert [stands(event) for event in events] == [WRITTEN] * 5
    assert [entry.move for entry in events[0].history] == ["record", "prepare", "intend", "settle"]
    assert (hints(pipeline), kinds(pipeline)) == (1, ["search", "batch"])
    (message,) = pipeline.services.redis.lrange(HINT_QUEUE, 0, -1)
    assert json.loads(message)["headers"]["task"] == "tasks.process"


def test_behind_a_closed_gate_everything_is_done_but_rhythms_part(open_one: Pipeline) -> None:
    gate = open_one.services.gate(TENANT)
    gate.close(AWAY, None)
    bodies = (ORIGINAL, again(ORIGINAL), b"not JSON", certiverse("dlv-2", exam="CERT-9"))
    waits, copy, invalid, unknown = (event.id for event in open_one.run(*bodies))
    assert standing(open_one, waits, copy, invalid) == [
        (EventState.READY, AWAY),
        DUPLICATE,
        (EventState.DEAD, Reason.INVALID_JSON),
    ]
    assert stands(open_one.event(unknown)) == held(Reason.UNKNOWN_EXAM)
    assert (open_one.event(waits).attempts, open_one.rhythm.requests()) == (0, [])
    sent = hints(open_one)
    go_on(open_one)
    assert hints(open_one) == sent, "nobody is called for what waits for the gate"
    gate.open()
    open_one.services.redis.delete(f"er:{TENANT}:gate")
    assert stands(on(open_one, waits)) == WRITTEN


def test_what_came_while_rhythm_was_away_is_ordered_before_anything_is_written(open_one: Pipeline) -> None:
    open_one.services.gate(TENANT).close(AWAY, None)
    (original,) = open_one.run(ORIGINAL)
    (rescore,) = open_one.run(RESCORE)
    open_one.services.redis.delete(f"er:{TENANT}:gate")
    go_on(open_one)
    assert standing(open_one, original.id, rescore.id) == [SUPERSEDED, WRITTEN]
    assert scores(open_one) == [82.5]


def test_new_results_and_retries_are_one_batch(pipeline: Pipeline) -> None:
    first, *others = seed(pipeline, 4)
    pipeline.rhythm.fault("status", kind="get", status=503)
    (failed,) = pipeline.run(first)
    assert failed.attempts == 1
    ids = [pipeline.deliver(body) for body in others]
    pipeline.due_now()
    before = len(kinds(pipeline))
    pipeline.sync()
    assert standing(pipeline, failed.id, *ids) == [WRITTEN] * 4
    assert kinds(pipeline)[before:] == ["search", "get", "batch", "patch"], "what failed before goes apart"


def test_the_way_of_an_answer_is_the_same(open_one: Pipeline) -> None:
    (event,) = open_one.run(certiverse(exam="CERT-9"))
    assert stands(event) == held(Reason.UNKNOWN_EXAM)
    (unscored,) = open_one.run(certiverse("dlv-3", passed=None))
    assert stands(unscored) == held(Reason.RESULT_UNSCORED)
    assert stands(replay(open_one, unscored.id, verdict="failed")) == WRITTEN
    assert books(open_one.services.redis, TENANT).differences == ()


def test_nothing_of_a_result_is_stored_but_its_payload(open_one: Pipeline) -> None:
    """Until it is written it is read again: so nothing that one release stores is misread by the next."""
    open_one.deliver(ORIGINAL)
    open_one.process()
    kinds_of_key = {key.decode().split(":")[2] for key in open_one.services.redis.keys(f"er:{TENANT}:*")}
    assert kinds_of_key == {"counts", "delivery", "due", "event", "events", "names", "payload"}


def test_an_edit_between_two_tries_is_not_lost(open_one: Pipeline) -> None:
    open_one.rhythm.fault("status", kind="patch", status=503)
    (event,) = open_one.run(ORIGINAL)
    assert event.state is EventState.READY
    open_one.rhythm.edit(ORG, "reg-1", status="passed", score=99)
    drain(open_one)
    assert stands(open_one.event(event.id)) == held(Reason.REGISTRATION_SETTLED)
    assert open_one.registration()["score"] == 99
