"""`plan` shows what would be written for an event, and why; and it writes nothing."""

from pathlib import Path

import pytest

from sandbox.control import Sandbox
from schemas.event import EventState
from tasks.operator.plan import Plan, plan_event
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at


def planned(pipeline: Pipeline, id: str) -> Plan:
    """The plan, having changed neither the event nor Rhythm."""
    before, writes = pipeline.event(id), pipeline.rhythm.counts()["writes"]
    plan = plan_event(pipeline.services, TENANT, id)
    assert plan is not None
    assert pipeline.event(id) == before
    assert pipeline.rhythm.counts()["writes"] == writes
    return plan


def test_a_plan_names_the_registration_the_difference_and_the_operations(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    plan = planned(pipeline, pipeline.deliver(certiverse()))
    assert (plan.verdict, plan.registration, plan.state) == ("written", "reg-1", EventState.RECEIVED)
    assert plan.difference["status"] == ["registered", "passed"]
    assert plan.operations[0] == {"op": "test", "path": "/sys_version", "value": 1}
    assert {one["path"] for one in plan.operations[1:]} == {"/status", "/score", "/exam_date"}


def test_a_plan_says_why_the_others_were_not_chosen(pipeline: Pipeline) -> None:
    others = {
        "reg-draft": ({"status": "draft"}, "is draft"),
        "reg-late": ({"date": "2026-06-01T00:00:00Z"}, "was made on 2026-06-01, after the sitting on 2026-05-04"),
        "reg-next": ({"exam_date": "2026-09-01"}, "is set for 2026-09-01, after the sitting on 2026-05-04"),
    }
    pipeline.rhythm.seed(ORG, [registration(), *(registration(id, **more) for id, (more, _) in others.items())])
    plan = planned(pipeline, pipeline.deliver(certiverse(registration=None)))
    assert plan.registration == "reg-1"
    not_chosen = {one.id: one.why for one in plan.candidates if one.why}
    assert not_chosen == {id: why for id, (_, why) in others.items()}


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (b"not JSON", "invalid_json"),
        (certiverse(exam="UNKNOWN"), "unknown_exam"),
        (certiverse(passed=None), "result_unscored"),
        (certiverse(registration="nowhere", student="nobody", email="no@example.org"), "registration_not_found"),
        (certiverse(registration="other-exam"), "registration_mismatch"),
    ],
    ids=["no JSON", "unknown exam", "unscored", "not found", "mismatch"],
)
def test_a_plan_tells_what_would_stop_an_event(pipeline: Pipeline, body: bytes, verdict: str) -> None:
    pipeline.rhythm.seed(ORG, [registration(), registration("other-exam", exam_id="exam-2")])
    assert planned(pipeline, pipeline.deliver(body)).verdict == verdict


def test_what_rhythm_says_already_is_planned_as_unchanged(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    (event,) = pipeline.run(certiverse())
    plan = planned(pipeline, event.id)
    assert (plan.verdict, plan.difference, plan.operations) == ("unchanged", {}, [])


def test_there_is_no_plan_for_an_event_that_there_is_not(pipeline: Pipeline) -> None:
    assert plan_event(pipeline.services, TENANT, "evt_nothing") is None


def test_a_plan_with_writes_off_accepted_shows_what_would_be_written(rhythm: Sandbox, tmp_path: Path) -> None:
    rhythm.seed(ORG, [registration()])
    with pipeline_at(tmp_path, rhythm, tenant='writes = "hold"') as held:
        (event,) = held.run(certiverse())
        assert planned(held, event.id).verdict == "writes_off"
        plan = plan_event(held.services, TENANT, event.id, answers={"accept": ["writes_off"]})
    assert plan is not None
    assert (plan.verdict, plan.difference["status"]) == ("written", ["registered", "passed"])


def test_who_asks_by_name_sees_whose_registration_it_is_also_where_one_is_clear(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration(first_name="Ana", last_name="Example")])
    plan = plan_event(pipeline.services, TENANT, pipeline.deliver(certiverse()), "operator:ann")
    assert plan is not None
    assert [(one.id, one.name, one.why) for one in plan.candidates] == [("reg-1", "Ana Example", "")]
