"""Process: what is valid, what is a result, what is new, and what is a copy."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.stages import (
    DUPLICATE,
    ORIGINAL,
    RESCORE,
    SECOND_RESCORE,
    WRITTEN,
    a_moment_later,
    again,
    go_on,
    held,
    on,
    replay,
    scores,
    stands,
)
from worker.ledger import queries
from worker.ledger.audit.books import books

DRILLSTER = """
[tenants.acme.sources.drillster]
credentials = [ { kind = "basic", user = "drillster", password = "env:ACME_CERTIVERSE" } ]
registration_ids = ["ticket.reference"]
[[tenants.acme.exams]]
exam_id = "exam-1"
codes = ["DRILL-1"]
"""
CONFLICT = (EventState.HELD, Reason.RESULT_CONFLICT)
REPEATED = (EventState.HELD, Reason.RESULT_REPEATED)


def test_a_passed_result_is_written_to_the_registration_it_names(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    (event,) = pipeline.run(certiverse())
    assert (event.state, event.result, event.registration) == (EventState.SYNCED, "written", "reg-1")
    after = pipeline.registration()
    assert (after["status"], after["score"], after["exam_date"]) == ("passed", 82.5, "2026-05-04T12:30:00Z")
    assert after["sys_version"] == 2
    assert [entry.move for entry in event.history] == ["record", "prepare", "intend", "settle"]


def test_the_same_bytes_again_are_the_same_event_with_one_more_receipt(open_one: Pipeline) -> None:
    (first,) = open_one.run(ORIGINAL)
    (second,) = open_one.run(ORIGINAL)
    assert (second.id, second.receipts, stands(second)) == (first.id, 2, WRITTEN)
    assert scores(open_one) == [60]


def test_the_same_bytes_twice_before_anything_is_done_are_one_event(open_one: Pipeline) -> None:
    open_one.run(ORIGINAL, ORIGINAL)
    assert books(open_one.services.redis, TENANT).accepted == 1
    assert scores(open_one) == [60]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one after the other"])
def test_the_same_result_in_other_bytes_is_a_duplicate(open_one: Pipeline, together: bool) -> None:
    bodies = [ORIGINAL, again(ORIGINAL), again(ORIGINAL, 2)]
    events = open_one.run(*bodies) if together else [open_one.run(body)[0] for body in bodies]
    assert sorted(stands(event) for event in events) == sorted([WRITTEN, DUPLICATE, DUPLICATE])
    assert scores(open_one) == [60]


def test_a_copy_of_a_held_result_is_a_duplicate(open_one: Pipeline) -> None:
    (held,) = open_one.run(certiverse(exam="CERT-9"))
    (copy,) = open_one.run(again(certiverse(exam="CERT-9")))
    assert stands(held) == (EventState.HELD, Reason.UNKNOWN_EXAM)
    assert stands(copy) == DUPLICATE
    assert held.id in str(copy.detail)


def test_a_copy_of_a_result_that_still_waits_is_a_duplicate(pipeline: Pipeline) -> None:
    (waiting,) = pipeline.run(ORIGINAL)
    (copy,) = pipeline.run(again(ORIGINAL))
    assert stands(waiting) == (EventState.READY, Reason.REGISTRATION_NOT_FOUND)
    assert stands(copy) == DUPLICATE


def dead(pipeline: Pipeline) -> Event:
    pipeline.rhythm.fault("status", kind="patch", status=400)
    (event,) = pipeline.run(ORIGINAL)
    assert stands(event) == (EventState.DEAD, Reason.RHYTHM_REJECTED)
    return event


def test_a_dead_event_delivered_again_is_replayed(open_one: Pipeline) -> None:
    first = dead(open_one)
    (event,) = open_one.run(ORIGINAL)
    assert (event.id, event.receipts, stands(event)) == (first.id, 2, WRITTEN)
    assert ("replay", "sender") in [(entry.move, entry.by) for entry in event.history]


def test_a_copy_of_a_dead_one_goes_its_own_way_and_the_dead_one_is_its_duplicate_then(open_one: Pipeline) -> None:
    first = dead(open_one)
    (copy,) = open_one.run(again(ORIGINAL))
    assert stands(copy) == WRITTEN
    assert stands(replay(open_one, first.id)) == DUPLICATE
    assert scores(open_one) == [60]


@pytest.mark.parametrize(
    ("body", "reason"), [(b"{", Reason.INVALID_JSON), (b"{}", Reason.INVALID_PAYLOAD)], ids=["no JSON", "no result"]
)
def test_an_invalid_event_delivered_again_stays_dead(open_one: Pipeline, body: bytes, reason: Reason) -> None:
    open_one.run(body)
    (event,) = open_one.run(body)
    assert (stands(event), event.receipts) == ((EventState.DEAD, reason), 2)


def test_an_event_that_ended_three_workers_alone_is_dead_and_stays_so_when_delivered_again(open_one: Pipeline) -> None:
    id = open_one.deliver(ORIGINAL)
    for worker in range(5):
        open_one.ledger.claim(TENANT, f"worker-{worker}", 1, 0)
        open_one.due_now()
    (event,) = open_one.run(ORIGINAL)
    assert (event.id, stands(event)) == (id, (EventState.DEAD, Reason.WORKER_KILLER))


def test_what_is_not_a_result_is_ignored(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> None:
    with pipeline_at(tmp_path, rhythm, more=DRILLSTER) as at:
        id = at.deliver(b'{"eventType": "QUESTION_ANSWERED"}', Source.DRILLSTER)
        go_on(at)
        assert stands(at.event(id)) == (EventState.IGNORED, None)
        assert at.rhythm.counts()["calls"] == 0


def test_a_rescore_that_another_one_replaced_comes_again_and_a_person_must_say(last_counts: Pipeline) -> None:
    (first,) = last_counts.run(RESCORE)
    a_moment_later(last_counts, first.id)
    last_counts.run(SECOND_RESCORE)
    (repeated,) = last_counts.run(again(RESCORE))
    assert stands(repeated) == REPEATED
    assert first.id in str(repeated.detail)
    assert scores(last_counts) == [82.5, 61]
    assert stands(replay(last_counts, repeated.id, accept=["result_repeated"])) == WRITTEN
    assert scores(last_counts) == [82.5, 61, 82.5]
    assert books(last_counts.services.redis, TENANT).differences == ()


def test_the_rescore_that_stands_comes_again_in_other_bytes_and_is_a_duplicate(last_counts: Pipeline) -> None:
    (first,) = last_counts.run(RESCORE)
    a_moment_later(last_counts, first.id)
    last_counts.run(SECOND_RESCORE)
    (copy,) = last_counts.run(again(SECOND_RESCORE))
    assert stands(copy) == DUPLICATE


def test_an_original_that_was_rescored_away_comes_again_and_is_a_duplicate(open_one: Pipeline) -> None:
    open_one.run(ORIGINAL)
    open_one.run(RESCORE)
    (copy,) = open_one.run(again(ORIGINAL))
    assert stands(copy) == DUPLICATE
    assert scores(open_one) == [60, 82.5]


def drillster(attempt: str, percentage: float, event: str = "e-1") -> bytes:
    return json.dumps(
        {
            "eventType": "TEST_COMPLETED",
            "eventId": event,
            "id": attempt,
            "completed": "2026-05-04T12:30:00Z",
            "test": {"id": "DRILL-1"},
            "ticket": {"id": "t-1", "reference": "reg-1"},
            "score": {"percentage": percentage, "transformations": [{"id": "t0", "result": "x", "passed": True}]},
        }
    ).encode()


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        pytest.param(drillster("a-1", 80.0), DUPLICATE, id="the same in other bytes"),
        pytest.param(drillster("a-2", 80), CONFLICT, id="another attempt"),
        pytest.param(drillster("a-1", 81), CONFLICT, id="another result"),
        pytest.param(drillster("a-1", 80, "e-2"), DUPLICATE, id="the same attempt under another event"),
        pytest.param(drillster("a-1", 81, "e-2"), CONFLICT, id="another result under another event"),
    ],
)
def test_one_event_id_of_drillster_means_one_result_of_one_attempt(
    client: "redis.Redis", rhythm: Sandbox, tmp_path: Path, second: bytes, expected: tuple[EventState, str | None]
) -> None:
    with pipeline_at(tmp_path, rhythm, more=DRILLSTER) as at:
        at.rhythm.seed(ORG, [registration()])
        told = []
        for body in (drillster("a-1", 80), second):
            id = at.deliver(body, Source.DRILLSTER)
            go_on(at)
            told.append(stands(at.event(id)))
    assert told == [WRITTEN, expected]


def test_a_duplicate_notes_its_event_id_too(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> None:
    told = []
    with pipeline_at(tmp_path, rhythm, more=DRILLSTER) as at:
        at.rhythm.seed(ORG, [registration()])
        for body in (drillster("a-1", 80), drillster("a-1", 80, "e-2"), drillster("a-2", 90, "e-2")):
            id = at.deliver(body, Source.DRILLSTER)
            go_on(at)
            told.append(stands(at.event(id)))
    assert told == [WRITTEN, DUPLICATE, CONFLICT]


# Too old to be told from a copy


def ancient(pipeline: Pipeline, days: float, **more: Any) -> bytes:
    """A result whose exam was completed so many days ago."""
    completed = (queries.redis_now(pipeline.services.redis) - timedelta(days=days)).isoformat()
    result = json.loads(certiverse(completed=completed, **more))
    result["examDelivery"]["deliveryDateTime"] = completed
    return json.dumps(result).encode()


def test_a_completion_of_over_400_days_ago_is_held_before_anything_else_is_asked(open_one: Pipeline) -> None:
    """Also where its exam is unknown, or another event has the same result: nothing of it is looked at."""
    bodies = [ancient(open_one, 400.01), ancient(open_one, 401, exam="CERT-9", delivery="dlv-2")]
    first, unknown = open_one.run(*bodies)
    (copy,) = open_one.run(again(bodies[0]))
    assert [stands(event) for event in (first, unknown, copy)] == [held(Reason.RESULT_ANCIENT)] * 3
    assert "more than 400 days ago" in str(first.detail)
    assert (first.version, first.delivery) == (None, None), "nor is its version noted"
    assert open_one.rhythm.requests() == []


def test_an_ancient_completion_that_a_person_accepts_goes_on(open_one: Pipeline) -> None:
    open_one.rhythm.edit(ORG, "reg-1", date="2020-01-01T00:00:00Z")
    (event,) = open_one.run(ancient(open_one, 500))
    assert stands(replay(open_one, event.id, accept=["result_conflict"])) == held(Reason.RESULT_ANCIENT)
    assert stands(replay(open_one, event.id, accept=["result_ancient"])) == WRITTEN


def test_a_completion_of_under_400_days_ago_is_not_ancient(open_one: Pipeline) -> None:
    open_one.rhythm.edit(ORG, "reg-1", date="2020-01-01T00:00:00Z")
    (event,) = open_one.run(ancient(open_one, 399.9))
    assert stands(event) == WRITTEN


# A bug


def test_a_bug_that_one_payload_meets_is_tried_again_until_the_horizon_and_stops_nobody(open_one: Pipeline) -> None:
    """Here an answer that accepts a reason which does not exist."""
    strange, other = open_one.deliver(ORIGINAL), open_one.deliver(certiverse("dlv-2", exam="CERT-9"))
    event = f"er:{TENANT}:event:{strange}"
    open_one.services.redis.hset(event, "answers", open_one.ledger.sealer.seal_text('{"accept": ["odd"]}', strange))
    go_on(open_one)
    assert stands(open_one.event(other)) == held(Reason.UNKNOWN_EXAM)
    failed = open_one.event(strange)
    assert (stands(failed), failed.attempts) == ((EventState.RECEIVED, Reason.INTERNAL_ERROR), 1)
    assert failed.detail == "ValueError", "by its type alone: the message may quote a payload"
    open_one.services.redis.hincrby(event, "first_attempt_at", -72 * 3600 * 1000)
    assert stands(on(open_one, strange)) == (EventState.DEAD, Reason.RETRIES_EXPIRED)


def test_of_an_id_that_was_never_set_a_hundred_results_are_compared_and_the_others_wait(open_one: Pipeline) -> None:
    """Each was compared with all others in one script, which with 500 held Redis up for two seconds."""
    bodies = [certiverse(score=number, passed=number >= 70) for number in range(104)]
    open_one.run(*bodies[:100])
    events = open_one.run(*bodies[100:])
    assert {(stands(event), event.detail) for event in events} == {
        (CONFLICT, "over a hundred results came under its id")
    }
    kept = open_one.services.redis.hkeys(f"er:{TENANT}:delivery:certiverse:dlv-1")
    assert sum(name.startswith(b"v:") for name in kept) == 100
    assert stands(replay(open_one, events[0].id, accept=["result_conflict"])) == WRITTEN
