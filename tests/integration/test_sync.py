"""Sync: which of a delivery's results counts, and what forbids that it is written."""

from pathlib import Path
from typing import Any

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.stages import (
    ORIGINAL,
    RESCORE,
    SECOND_RESCORE,
    SUPERSEDED,
    UNCHANGED,
    WRITTEN,
    a_moment_later,
    go_on,
    held,
    kinds,
    on,
    replay,
    scores,
    stands,
)

pytestmark = pytest.mark.usefixtures("balanced")
WHEN = "2026-05-04T12:30:00Z"


def status(pipeline: Pipeline, *ids: str) -> list[str]:
    return [pipeline.registration(id)["status"] for id in ids]


# Which result counts

CONFLICT = (EventState.HELD, Reason.RESULT_CONFLICT)


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
    ((job,),) = open_one.read("slow", open_one.ledger.claim(TENANT, "slow", 100, 0))[1:]
    open_one.deliver(RESCORE)
    open_one.process()
    plan = {"id": original, "registration": "reg-1", "rev": "0", "delivery_rev": job.work.delivery_record.rev}
    assert plan["delivery_rev"] == "1"
    assert open_one.ledger.intend(TENANT, "slow", [plan | {"intent": "{}"}]) == ["moved"]
    for _ in range(2):
        go_on(open_one)
    assert stands(open_one.event(original)) == SUPERSEDED
    assert scores(open_one) == [82.5]


def test_a_rescore_that_comes_before_a_lost_reply_was_looked_into_replaces_what_was_written(open_one: Pipeline) -> None:
    open_one.rhythm.fault("apply_then_lose", kind="patch")
    (original,) = open_one.run(ORIGINAL)
    assert stands(original) == (EventState.READY, Reason.RHYTHM_UNAVAILABLE)
    rescore = open_one.deliver(RESCORE)
    open_one.process()
    for _ in range(2):
        go_on(open_one)
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
        go_on(last_counts)
    a_moment_later(last_counts, ids[0])
    ids.append(last_counts.deliver(certiverse(score=61)))
    go_on(last_counts)
    told = [stands(last_counts.event(id)) for id in ids]
    assert told == ([SUPERSEDED, WRITTEN] if together else [WRITTEN, WRITTEN])
    assert scores(last_counts) == ([61] if together else [60, 61])


def test_a_result_received_earlier_but_processed_later_does_not_count(last_counts: Pipeline) -> None:
    late = last_counts.deliver(ORIGINAL)
    last_counts.ledger.claim(TENANT, "dies", 100, 0)
    a_moment_later(last_counts, late)
    (newer,) = last_counts.run(certiverse(score=61))
    go_on(last_counts)
    assert [stands(last_counts.event(late)), stands(newer)] == [SUPERSEDED, WRITTEN]
    assert scores(last_counts) == [61]


def test_an_original_received_last_does_not_count_against_a_rescore(last_counts: Pipeline) -> None:
    last_counts.run(RESCORE)
    (original,) = last_counts.run(ORIGINAL)
    assert stands(original) == SUPERSEDED
    assert scores(last_counts) == [82.5]


# What forbids that it is written


def seeded(pipeline: Pipeline, *registrations: dict[str, Any]) -> Pipeline:
    pipeline.rhythm.seed(ORG, registrations)
    return pipeline


def test_a_locked_registration_is_tried_again_until_it_is_free(pipeline: Pipeline) -> None:
    (event,) = seeded(pipeline, registration(sys_locked=True)).run(certiverse())
    assert (stands(event), event.attempts) == ((EventState.READY, Reason.REGISTRATION_LOCKED), 1)
    assert kinds(pipeline) == ["get"]
    pipeline.rhythm.edit(ORG, "reg-1", sys_locked=None)
    assert stands(on(pipeline, event.id)) == WRITTEN


def test_a_result_that_another_hand_wrote_already_is_unchanged(pipeline: Pipeline) -> None:
    seeded(pipeline, registration(status="passed", score=82.50, exam_date="2026-05-04T14:30:00+02:00"))
    (event,) = pipeline.run(certiverse())
    assert stands(event) == UNCHANGED
    assert (pipeline.rhythm.counts()["writes"], pipeline.rhythm.letters()) == (0, [])


@pytest.mark.parametrize("present", ["passed", "failed", "no show"])
def test_another_result_of_another_hand_is_overwritten_only_if_a_person_says_so(
    pipeline: Pipeline, present: str
) -> None:
    seeded(pipeline, registration(status=present, score=12))
    (event,) = pipeline.run(certiverse())
    assert stands(event) == held(Reason.REGISTRATION_SETTLED)
    assert pipeline.registration()["score"] == 12
    assert stands(replay(pipeline, event.id, accept=["registration_edited"])) == held(Reason.REGISTRATION_SETTLED)
    assert stands(replay(pipeline, event.id, accept=["registration_settled"])) == WRITTEN
    assert pipeline.registration()["score"] == 82.5


def test_another_delivery_s_result_counts_as_another_hand_s(pipeline: Pipeline) -> None:
    seeded(pipeline, registration()).run(certiverse("dlv-1", passed=False, score=50))
    (second,) = pipeline.run(certiverse("dlv-2", completed="2026-06-15T12:00:00Z"))
    assert stands(second) == held(Reason.REGISTRATION_SETTLED)
    assert status(pipeline, "reg-1") == ["failed"]


@pytest.mark.parametrize(
    "edit", [{"score": 12}, {"status": "registered"}, {"exam_date": None}], ids=["score", "status", "date"]
)
def test_what_a_registrar_changed_of_ours_is_overwritten_only_if_a_person_says_so(
    pipeline: Pipeline, edit: dict[str, Any]
) -> None:
    seeded(pipeline, registration()).run(certiverse())
    edited = pipeline.rhythm.edit(ORG, "reg-1", **edit)
    (rescore,) = pipeline.run(certiverse(score=90, rescore=True))
    assert stands(rescore) == held(Reason.REGISTRATION_EDITED)
    assert pipeline.registration() == edited
    assert stands(replay(pipeline, rescore.id, accept=["registration_edited"])) == WRITTEN
    assert (pipeline.registration()["score"], status(pipeline, "reg-1")) == (90, ["passed"])


def test_what_a_registrar_changed_of_something_else_is_nobody_s_business(pipeline: Pipeline) -> None:
    seeded(pipeline, registration()).run(certiverse())
    pipeline.rhythm.edit(ORG, "reg-1", notes="called on Monday")
    (rescore,) = pipeline.run(certiverse(score=90, rescore=True))
    assert stands(rescore) == WRITTEN
    assert pipeline.registration()["notes"] == "called on Monday"


@pytest.mark.parametrize(
    ("answer", "expected", "letters"),
    [("passed", ["passed", 82.5], 1), ("failed", ["failed", 82.5], 1), ("none", ["registered", 82.5], 0)],
)
def test_a_result_without_a_verdict_waits_for_a_person_s(
    pipeline: Pipeline, answer: str, expected: list[Any], letters: int
) -> None:
    (event,) = seeded(pipeline, registration()).run(certiverse(passed=None))
    assert stands(event) == held(Reason.RESULT_UNSCORED)
    assert pipeline.rhythm.counts()["writes"] == 0
    assert stands(replay(pipeline, event.id, verdict=answer)) == WRITTEN
    after = pipeline.registration()
    assert [after["status"], after["score"]] == expected
    assert len(pipeline.rhythm.letters()) == letters


@pytest.mark.parametrize(("score", "expected"), [(70, "passed"), (69.99, "failed")])
def test_a_threshold_of_the_exam_map_decides_where_the_platform_does_not(
    client: "redis.Redis", rhythm: Sandbox, tmp_path: Path, score: float, expected: str
) -> None:
    with pipeline_at(tmp_path, rhythm, more="threshold = 70") as at:
        (event,) = seeded(at, registration()).run(certiverse(passed=None, score=score))
        assert (stands(event), status(at, "reg-1")) == (WRITTEN, [expected])


def test_a_sitting_that_was_ended_is_reviewed_first(pipeline: Pipeline) -> None:
    (event,) = seeded(pipeline, registration()).run(certiverse(termination="Other: Ada had a phone"))
    assert stands(event) == held(Reason.INTEGRITY_REVIEW)
    assert "Ada" not in str(event.detail)
    assert status(pipeline, "reg-1") == ["registered"]
    assert stands(replay(pipeline, event.id, accept=["integrity_review"])) == WRITTEN


def test_while_writes_are_on_hold_everything_is_planned_and_nothing_written(
    client: "redis.Redis", rhythm: Sandbox, tmp_path: Path
) -> None:
    with pipeline_at(tmp_path, rhythm, tenant='writes = "hold"') as at:
        seeded(at, registration("reg-1"), registration("reg-2", status="passed", score=82.5, exam_date=WHEN))
        seeded(at, registration("reg-3", status="failed"))
        events = at.run(*(certiverse(f"dlv-{number}", f"reg-{number}") for number in (1, 2, 3)))
        expected = [held(Reason.WRITES_OFF), UNCHANGED, held(Reason.REGISTRATION_SETTLED)]
        assert [stands(event) for event in events] == expected
        assert rhythm.counts()["writes"] == 0
        assert stands(replay(at, events[0].id, accept=["writes_off"])) == WRITTEN


def test_an_answer_adds_to_those_given_before(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    (event,) = pipeline.run(certiverse(passed=None, termination="ProhibitedItem"))
    assert stands(event) == held(Reason.INTEGRITY_REVIEW)
    assert stands(replay(pipeline, event.id, accept=["integrity_review"])) == held(Reason.RESULT_UNSCORED)
    assert stands(replay(pipeline, event.id, verdict="failed")) == WRITTEN
    assert pipeline.registration()["status"] == "failed"


@pytest.mark.parametrize(
    ("locked", "expected"),
    [
        pytest.param(False, (EventState.DEAD, Reason.REGISTRATION_NOT_FOUND), id="not found: dead"),
        pytest.param(True, (EventState.HELD, Reason.REGISTRATION_LOCKED), id="locked: held"),
    ],
)
def test_only_an_attempt_that_fails_after_the_horizon_ends_the_patience(
    pipeline: Pipeline, locked: bool, expected: tuple[EventState, Reason]
) -> None:
    (event,) = (seeded(pipeline, registration(sys_locked=True)) if locked else pipeline).run(certiverse())
    assert event.state is EventState.READY
    three_days_ms = 72 * 3600 * 1000
    pipeline.services.redis.hincrby(f"er:{TENANT}:event:{event.id}", "first_attempt_at", -three_days_ms)
    assert stands(pipeline.event(event.id))[0] is EventState.READY, "not the clock alone"
    assert stands(on(pipeline, event.id)) == expected
