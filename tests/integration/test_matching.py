"""Which registration a result is written to, and every case in which a person must say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from worker.ledger.audit.books import books

WHEN = "2026-05-04T12:30:00Z"
WRITTEN, UNCHANGED = (EventState.SYNCED, "written"), (EventState.SYNCED, "unchanged")
ADA = "Ada@Example.org"


@pytest.fixture(autouse=True)
def balanced(client: "redis.Redis") -> Iterator[None]:
    """Whatever a test does, the books balance at its end."""
    yield
    assert books(client, TENANT).differences == ()


def stands(event: Event) -> tuple[EventState, str | None]:
    """The state, and the reason or result."""
    return event.state, event.reason or event.result


def held(reason: Reason) -> tuple[EventState, str]:
    return EventState.HELD, reason


def on(pipeline: Pipeline, id: str) -> Event:
    """Whatever waits is due, and is processed and synced."""
    pipeline.due_now()
    pipeline.process()
    pipeline.sync()
    return pipeline.event(id)


def replay(pipeline: Pipeline, id: str, **answers: object) -> Event:
    assert pipeline.ledger.replay(TENANT, id, "op", answers)[0]
    return on(pipeline, id)


def status(pipeline: Pipeline, *ids: str) -> list[str]:
    return [pipeline.registration(id)["status"] for id in ids]


def kinds(pipeline: Pipeline) -> list[str]:
    """The calls that Rhythm got, in order."""
    return [call["kind"] for call in pipeline.rhythm.requests()]


def seeded(pipeline: Pipeline, *registrations: dict[str, Any]) -> Pipeline:
    pipeline.rhythm.seed(ORG, registrations)
    return pipeline


def test_a_result_that_names_its_registration_costs_two_calls(pipeline: Pipeline) -> None:
    (event,) = seeded(pipeline, registration()).run(certiverse())
    assert (stands(event), event.registration, kinds(pipeline)) == (WRITTEN, "reg-1", ["get", "patch"])


@pytest.mark.parametrize("name", [None, "reg-9", "../search", "a b", "x" * 255], ids=lambda name: str(name)[:9])
def test_without_a_registration_of_that_name_it_is_found_by_student_and_exam(
    pipeline: Pipeline, name: str | None
) -> None:
    (event,) = seeded(pipeline, registration()).run(certiverse(registration=name))
    assert (stands(event), event.registration) == (WRITTEN, "reg-1")
    assert kinds(pipeline)[-2:] == ["student_exam", "patch"]


@pytest.mark.parametrize("student", [None, "stu-9"], ids=["no student id", "a student whom Rhythm does not know"])
def test_else_it_is_found_by_e_mail_and_exam_in_any_case(pipeline: Pipeline, student: str | None) -> None:
    known = registration("reg-1", email_address=f" {ADA} ")
    if student:
        known["student_id"] = ""
    other = registration("reg-2", email_address="eve@example.org", student_id="stu-2")
    pipeline.rhythm.options(search_text="contains")
    (event,) = seeded(pipeline, known, other).run(certiverse(registration=None, student=student))
    assert (stands(event), event.registration) == (WRITTEN, "reg-1")
    assert kinds(pipeline)[-2:] == ["search", "patch"]


def test_a_search_that_finds_more_than_the_address_is_not_believed(pipeline: Pipeline) -> None:
    pipeline.rhythm.options(search_text="contains")
    longer = registration("reg-1", email_address="grace.ada@example.org", student_id="stu-2")
    (event,) = seeded(pipeline, longer).run(certiverse(registration=None, student=None))
    assert stands(event) == (EventState.READY, Reason.REGISTRATION_NOT_FOUND)


def test_an_e_mail_address_that_two_students_share_is_nobody_s_proof(pipeline: Pipeline) -> None:
    (event,) = seeded(pipeline, registration(student_id="stu-2")).run(certiverse(registration=None, student="stu-1"))
    assert stands(event) == held(Reason.REGISTRATION_MISMATCH)
    assert status(pipeline, "reg-1") == ["registered"]


@pytest.mark.parametrize(
    "contradiction",
    [{"student_id": "stu-2"}, {"exam_id": "exam-2"}, {"status": "cancelled"}, {"status": "draft"}],
    ids=["another student", "another exam", "cancelled", "draft"],
)
def test_a_name_that_person_exam_or_status_contradict_is_held(
    pipeline: Pipeline, contradiction: dict[str, str]
) -> None:
    seeded(pipeline, registration() | contradiction, registration("reg-2"))
    (event,) = pipeline.run(certiverse())
    assert stands(event) == held(Reason.REGISTRATION_MISMATCH)
    assert "reg-1" in str(event.detail)
    assert status(pipeline, "reg-2") == ["registered"], "nor is it written to the one that would fit"
    assert stands(replay(pipeline, event.id)) == held(Reason.REGISTRATION_MISMATCH)
    assert stands(replay(pipeline, event.id, registration="reg-2")) == WRITTEN
    assert status(pipeline, "reg-2") == ["passed"]


def test_two_that_fit_equally_are_held_with_their_ids_until_a_person_names_one(pipeline: Pipeline) -> None:
    seeded(pipeline, registration("reg-1"), registration("reg-2"))
    (event,) = pipeline.run(certiverse(registration=None))
    assert stands(event) == held(Reason.REGISTRATION_AMBIGUOUS)
    assert "reg-1, reg-2" in str(event.detail)
    assert stands(replay(pipeline, event.id, registration="reg-2")) == WRITTEN
    assert status(pipeline, "reg-1", "reg-2") == ["registered", "passed"]


def test_a_rescore_goes_to_the_registration_that_its_delivery_was_written_to(pipeline: Pipeline) -> None:
    seeded(pipeline, registration("reg-1", exam_date="2026-05-04"), registration("reg-2", exam_date="2026-03-01"))
    pipeline.run(certiverse(registration=None))
    seeded(pipeline, registration("reg-3", exam_date="2026-05-04"))
    (rescore,) = pipeline.run(certiverse(registration=None, passed=False, rescore=True))
    assert (stands(rescore), rescore.registration) == (WRITTEN, "reg-1")
    assert status(pipeline, "reg-1", "reg-2", "reg-3") == ["failed", "registered", "registered"]


def test_a_registration_that_a_person_named_and_that_is_not_there_is_not_replaced_by_another(
    pipeline: Pipeline,
) -> None:
    seeded(pipeline, registration("reg-1"), registration("reg-2"))
    (event,) = pipeline.run(certiverse(registration=None))
    pipeline.rhythm.edit(ORG, "reg-2", status="cancelled")
    for name in ("reg-22", "reg-2"):
        answered = replay(pipeline, event.id, registration=name)
        assert stands(answered) == held(Reason.REGISTRATION_MISMATCH), "a person looks now, not after 72 hours"
        assert name in str(answered.detail)
    assert status(pipeline, "reg-1") == ["registered"]
    seeded(pipeline, registration("reg-22"))
    assert stands(replay(pipeline, event.id, registration="reg-22")) == WRITTEN


def test_a_rescore_that_names_another_registration_than_its_original_is_held(pipeline: Pipeline) -> None:
    seeded(pipeline, registration("reg-1"), registration("reg-2"))
    pipeline.run(certiverse())
    (rescore,) = pipeline.run(certiverse(registration="reg-2", passed=False, rescore=True))
    assert stands(rescore) == held(Reason.REGISTRATION_MISMATCH)
    assert "reg-1" in str(rescore.detail)
    assert stands(replay(pipeline, rescore.id, registration="reg-2")) == WRITTEN


def test_a_registration_that_is_not_there_yet_is_looked_for_again(pipeline: Pipeline) -> None:
    (event,) = pipeline.run(certiverse())
    assert (stands(event), event.attempts) == ((EventState.READY, Reason.REGISTRATION_NOT_FOUND), 1)
    assert event.due_at is not None
    assert on(pipeline, event.id).attempts == 2
    seeded(pipeline, registration())
    assert stands(on(pipeline, event.id)) == WRITTEN


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


def test_an_unknown_exam_is_held_before_anything_is_looked_up(pipeline: Pipeline) -> None:
    (event,) = seeded(pipeline, registration()).run(certiverse(exam="CERT-9"))
    assert (stands(event), kinds(pipeline)) == (held(Reason.UNKNOWN_EXAM), [])
    assert "CERT-9" in str(event.detail)


def test_a_source_that_is_no_longer_in_the_tenants_file_hurts_only_its_own_events(
    pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory
) -> None:
    body = json.dumps({
        "id": "a-1", "completed": WHEN, "score": {"percentage": 80}, "test": {"id": "CERT-1"}, "ticket": {"id": "t"},
    }).encode()  # fmt: skip
    drillster = """[tenants.acme.sources.drillster]
credentials = [ { kind = "basic", user = "d", password = "env:ACME_CERTIVERSE" } ]
"""
    with pipeline_at(tmp_path_factory.mktemp("before"), pipeline.rhythm, more=drillster) as before:
        orphan = seeded(before, registration()).deliver(body, Source.DRILLSTER)
    (event,) = pipeline.run(certiverse())
    assert (stands(event), stands(pipeline.event(orphan))) == (WRITTEN, held(Reason.UNKNOWN_EXAM))


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


def test_an_id_that_rhythm_refuses_to_search_for_hurts_only_its_own_event(pipeline: Pipeline) -> None:
    seeded(pipeline, *(registration(f"reg-{number}", student_id=f"s-{number}") for number in range(5)))
    pipeline.rhythm.fault("status", times=None, status=400, ids=["odd:one"])
    bodies = [certiverse(f"dlv-{number}", f"reg-{number}", student=f"s-{number}") for number in range(5)]
    *events, odd = pipeline.run(*bodies, certiverse("dlv-9", "odd:one", student="s-9", email="x@example.org"))
    assert [stands(event) for event in events] == [WRITTEN] * 5
    assert (stands(odd), odd.attempts) == ((EventState.READY, Reason.REGISTRATION_NOT_FOUND), 1)


@pytest.mark.parametrize("sparse", [False, True])
def test_candidates_on_later_pages_count(pipeline: Pipeline, sparse: bool) -> None:
    pipeline.rhythm.options(page_size=2, sparse_pages=sparse, cursor="object")
    seeded(pipeline, *(registration(f"old-{number}", status="cancelled") for number in range(5)), registration("reg-1"))
    (event,) = pipeline.run(certiverse(registration=None))
    assert (stands(event), event.registration) == (WRITTEN, "reg-1")


def test_an_answer_adds_to_those_given_before(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    (event,) = pipeline.run(certiverse(passed=None, termination="ProhibitedItem"))
    assert stands(event) == held(Reason.INTEGRITY_REVIEW)
    assert stands(replay(pipeline, event.id, accept=["integrity_review"])) == held(Reason.RESULT_UNSCORED)
    assert stands(replay(pipeline, event.id, verdict="failed")) == WRITTEN
    assert pipeline.registration()["status"] == "failed"
