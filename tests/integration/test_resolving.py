"""Resolve: which registration a result is written to, and every case in which a person must say."""

import json
from typing import Any

import pytest

from schemas.event import EventState, Reason
from schemas.outcome import Source
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.stages import WRITTEN, held, kinds, on, replay, stands

pytestmark = pytest.mark.usefixtures("balanced")
WHEN = "2026-05-04T12:30:00Z"

ADA = "Ada@Example.org"


def status(pipeline: Pipeline, *ids: str) -> list[str]:
    return [pipeline.registration(id)["status"] for id in ids]


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
    first = pipeline.services.redis.hget(f"er:{TENANT}:event:{event.id}", "first_attempt_at")
    assert on(pipeline, event.id).attempts == 2
    now = pipeline.services.redis.hget(f"er:{TENANT}:event:{event.id}", "first_attempt_at")
    assert now == first, "the horizon counts from the first"
    seeded(pipeline, registration())
    assert stands(on(pipeline, event.id)) == WRITTEN


def test_an_unknown_exam_is_held_before_anything_is_looked_up(pipeline: Pipeline) -> None:
    (event,) = seeded(pipeline, registration()).run(certiverse(exam="CERT-9"))
    assert (stands(event), kinds(pipeline)) == (held(Reason.UNKNOWN_EXAM), [])
    assert "CERT-9" in str(event.detail)


def test_a_source_that_is_no_longer_in_the_tenants_file_hurts_only_its_own_events(
    pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory
) -> None:
    body = json.dumps(
        {
            "id": "a-1",
            "completed": WHEN,
            "score": {"percentage": 80},
            "test": {"id": "CERT-1"},
            "ticket": {"id": "t"},
        }
    ).encode()
    drillster = """[tenants.acme.sources.drillster]
credentials = [ { kind = "basic", user = "d", password = "env:ACME_CERTIVERSE" } ]
"""
    with pipeline_at(tmp_path_factory.mktemp("before"), pipeline.rhythm, more=drillster) as before:
        orphan = seeded(before, registration()).deliver(body, Source.DRILLSTER)
    (event,) = pipeline.run(certiverse())
    assert (stands(event), stands(pipeline.event(orphan))) == (WRITTEN, held(Reason.UNKNOWN_EXAM))


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
