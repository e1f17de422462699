"""From a payload on the books to the registration in Rhythm: what is new, what is a copy, and which result counts."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import Event, EventState, Reason, Stage
from schemas.outcome import Source
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import wait_until
from worker.ledger import queries
from worker.ledger.audit.books import books

ORIGINAL = certiverse(passed=False, score=60)
RESCORE = certiverse(passed=True, score=82.5, rescore=True)
SECOND_RESCORE = certiverse(passed=False, score=61, rescore=True)
DRILLSTER = """
[tenants.acme.sources.drillster]
credentials = [ { kind = "basic", user = "drillster", password = "env:ACME_CERTIVERSE" } ]
registration_ids = ["ticket.reference"]
[[tenants.acme.exams]]
exam_id = "exam-1"
codes = ["DRILL-1"]
"""


def again(body: bytes, indent: int = 1) -> bytes:
    """The same result in other bytes."""
    return json.dumps(json.loads(body), indent=indent).encode()


@pytest.fixture
def last_counts(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> Iterator[Pipeline]:
    """A tenant for whom the result received last counts."""
    with pipeline_at(tmp_path, rhythm, tenant='rescore_order = "received"') as built:
        built.rhythm.seed(ORG, [registration()])
        yield built


@pytest.fixture
def open_one(pipeline: Pipeline) -> Iterator[Pipeline]:
    """A pipeline with one open registration. Its books must balance at the end."""
    pipeline.rhythm.seed(ORG, [registration()])
    yield pipeline
    assert books(pipeline.services.redis, TENANT).differences == ()


def on(pipeline: Pipeline) -> None:
    """Whatever waits is due, and is processed and synced."""
    pipeline.due_now()
    pipeline.process()
    pipeline.sync()


def replay(pipeline: Pipeline, id: str, **answers: object) -> Event:
    assert pipeline.ledger.replay(TENANT, id, "op", answers)[0]
    on(pipeline)
    return pipeline.event(id)


def scores(pipeline: Pipeline, id: str = "reg-1") -> list[float]:
    """Every score that the registration ever had written, oldest first."""
    changes = (write["changes"] for write in pipeline.rhythm.history(ORG, id))
    return [change["score"][1] for change in changes if "score" in change]


def stands(event: Event) -> tuple[EventState, str | None]:
    """The state, and the reason or result."""
    return event.state, event.reason or event.result


WRITTEN = (EventState.SYNCED, "written")
DUPLICATE = (EventState.DUPLICATE, None)
SUPERSEDED = (EventState.SUPERSEDED, None)
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
        open_one.ledger.claim(TENANT, Stage.PROCESS, f"worker-{worker}", 1, 0)
        open_one.due_now()
    (event,) = open_one.run(ORIGINAL)
    assert (event.id, stands(event)) == (id, (EventState.DEAD, Reason.WORKER_KILLER))


def test_what_is_not_a_result_is_ignored(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> None:
    with pipeline_at(tmp_path, rhythm, more=DRILLSTER) as at:
        id = at.deliver(b'{"eventType": "QUESTION_ANSWERED"}', Source.DRILLSTER)
        on(at)
        assert stands(at.event(id)) == (EventState.IGNORED, None)
        assert at.rhythm.counts()["calls"] == 0


def test_a_rescore_replaces_its_original(open_one: Pipeline) -> None:
    (original,) = open_one.run(ORIGINAL)
    (rescore,) = open_one.run(RESCORE)
    assert [stands(original), stands(rescore)] == [WRITTEN, WRITTEN]
    assert scores(open_one) == [60, 82.5]
    assert open_one.registration()["status"] == "passed"
    assert [letter["status"] for letter in open_one.rhythm.letters()] == ["failed", "passed"]


def test_an_original_that_comes_after_its_rescore_is_never_written(open_one: Pipeline) -> None:
    (rescore,) = open_one.run(RESCORE)
    (original,) = open_one.run(ORIGINAL)
    assert [stands(rescore), stands(original)] == [WRITTEN, SUPERSEDED]
    assert scores(open_one) == [82.5]


@pytest.mark.parametrize("bodies", [(ORIGINAL, RESCORE), (RESCORE, ORIGINAL)], ids=["in order", "reversed"])
def test_of_an_original_and_its_rescore_in_one_batch_only_the_rescore_is_written(
    open_one: Pipeline, bodies: tuple[bytes, bytes]
) -> None:
    told = {event.version[0]: stands(event) for event in open_one.run(*bodies) if event.version}
    assert told == {"o": SUPERSEDED, "r": WRITTEN}
    assert scores(open_one) == [82.5]


def test_a_rescore_that_comes_while_its_original_is_planned_keeps_it_from_being_written(open_one: Pipeline) -> None:
    original = open_one.deliver(ORIGINAL)
    open_one.process()
    claim = open_one.ledger.claim(TENANT, Stage.SYNC, "slow", 100, 0)
    open_one.deliver(RESCORE)
    open_one.process()
    plan = {"id": original, "registration": "reg-1", "rev": "0", "delivery_rev": claim.works[0].delivery_record.rev}
    assert open_one.ledger.intend(TENANT, "slow", [plan | {"intent": "{}"}]) == ["moved"]
    for _ in range(2):
        on(open_one)
    assert stands(open_one.event(original)) == SUPERSEDED
    assert scores(open_one) == [82.5]


def test_a_rescore_that_comes_before_a_lost_reply_was_looked_into_replaces_what_was_written(open_one: Pipeline) -> None:
    open_one.rhythm.fault("apply_then_lose", kind="patch")
    (original,) = open_one.run(ORIGINAL)
    assert stands(original) == (EventState.READY, Reason.RHYTHM_UNAVAILABLE)
    rescore = open_one.deliver(RESCORE)
    open_one.process()
    for _ in range(2):
        on(open_one)
    assert [stands(open_one.event(id)) for id in (original.id, rescore)] == [WRITTEN, WRITTEN]
    assert scores(open_one) == [60, 82.5]


def test_two_originals_that_differ_are_both_held_when_neither_is_applied(open_one: Pipeline) -> None:
    first, second = open_one.run(ORIGINAL, certiverse(score=61))
    assert [stands(first), stands(second)] == [CONFLICT, CONFLICT]
    assert second.id in str(first.detail)
    assert scores(open_one) == []
    assert stands(replay(open_one, first.id, accept=["result_conflict"])) == WRITTEN
    assert stands(open_one.event(second.id)) == CONFLICT
    assert scores(open_one) == [60]


def test_a_second_original_that_differs_is_held_and_what_was_applied_stands_until_a_person_says(
    open_one: Pipeline,
) -> None:
    open_one.run(ORIGINAL)
    (second,) = open_one.run(certiverse(score=61))
    assert stands(second) == CONFLICT
    assert stands(replay(open_one, second.id)) == CONFLICT, "without the answer it is held again"
    assert stands(replay(open_one, second.id, accept=["integrity_review"])) == CONFLICT, "another answer does not do"
    assert scores(open_one) == [60]
    assert stands(replay(open_one, second.id, accept=["result_conflict"])) == WRITTEN
    assert scores(open_one) == [60, 61]


def test_a_second_original_that_was_discarded_leaves_the_first_undisputed(open_one: Pipeline) -> None:
    first, second = open_one.run(ORIGINAL, certiverse(score=61))
    assert open_one.ledger.discard(TENANT, second.id, "op", "a slip")[0]
    assert stands(replay(open_one, first.id)) == WRITTEN
    assert scores(open_one) == [60]


def test_an_answer_to_a_conflict_does_not_put_an_original_before_a_rescore(open_one: Pipeline) -> None:
    open_one.run(ORIGINAL)
    (second,) = open_one.run(certiverse(score=61))
    open_one.run(RESCORE)
    assert stands(replay(open_one, second.id, accept=["result_conflict"])) == SUPERSEDED
    assert scores(open_one) == [60, 82.5]


def test_two_rescores_that_differ_are_held_like_two_originals(open_one: Pipeline) -> None:
    open_one.run(ORIGINAL)
    first, second = open_one.run(RESCORE, SECOND_RESCORE)
    assert [stands(first), stands(second)] == [CONFLICT, CONFLICT]
    assert scores(open_one) == [60]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one after the other"])
def test_where_the_tenant_says_so_the_result_received_last_counts(last_counts: Pipeline, together: bool) -> None:
    ids = [last_counts.deliver(ORIGINAL)]
    if not together:
        on(last_counts)
    a_moment_later(last_counts, ids[0])
    ids.append(last_counts.deliver(certiverse(score=61)))
    on(last_counts)
    told = [stands(last_counts.event(id)) for id in ids]
    assert told == ([SUPERSEDED, WRITTEN] if together else [WRITTEN, WRITTEN])
    assert scores(last_counts) == ([61] if together else [60, 61])


def a_moment_later(pipeline: Pipeline, id: str) -> None:
    """Wait until Redis' clock is past the millisecond in which an event was received."""
    at = pipeline.event(id).received_at
    wait_until(lambda: queries.redis_now(pipeline.services.redis) > at, 5, "the next millisecond")


def test_a_result_received_earlier_but_processed_later_does_not_count(last_counts: Pipeline) -> None:
    late = last_counts.deliver(ORIGINAL)
    last_counts.ledger.claim(TENANT, Stage.PROCESS, "dies", 100, 0)
    a_moment_later(last_counts, late)
    (newer,) = last_counts.run(certiverse(score=61))
    on(last_counts)
    assert [stands(last_counts.event(late)), stands(newer)] == [SUPERSEDED, WRITTEN]
    assert scores(last_counts) == [61]


def test_an_original_received_last_does_not_count_against_a_rescore(last_counts: Pipeline) -> None:
    last_counts.run(RESCORE)
    (original,) = last_counts.run(ORIGINAL)
    assert stands(original) == SUPERSEDED
    assert scores(last_counts) == [82.5]


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
    return json.dumps({
        "eventType": "TEST_COMPLETED", "eventId": event, "id": attempt, "completed": "2026-05-04T12:30:00Z",
        "test": {"id": "DRILL-1"}, "ticket": {"id": "t-1", "reference": "reg-1"},
        "score": {"percentage": percentage, "transformations": [{"id": "t0", "result": "x", "passed": True}]},
    }).encode()  # fmt: skip


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
            on(at)
            told.append(stands(at.event(id)))
    assert told == [WRITTEN, expected]


def test_a_duplicate_notes_its_event_id_too(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> None:
    told = []
    with pipeline_at(tmp_path, rhythm, more=DRILLSTER) as at:
        at.rhythm.seed(ORG, [registration()])
        for body in (drillster("a-1", 80), drillster("a-1", 80, "e-2"), drillster("a-2", 90, "e-2")):
            id = at.deliver(body, Source.DRILLSTER)
            on(at)
            told.append(stands(at.event(id)))
    assert told == [WRITTEN, DUPLICATE, CONFLICT]
