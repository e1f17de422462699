"""From a payload on the books to the registration in Rhythm."""

from schemas.event import EventState, Reason
from tests.events import certiverse, registration
from tests.pipeline import ORG, Pipeline


def test_a_passed_result_is_written_to_the_registration_it_names(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    (event,) = pipeline.run(certiverse())
    assert (event.state, event.result, event.registration) == (EventState.SYNCED, "written", "reg-1")
    after = pipeline.registration()
    assert (after["status"], after["score"], after["exam_date"]) == ("passed", 82.5, "2026-05-04T12:30:00Z")
    assert after["sys_version"] == 2
    assert [entry.move for entry in event.history] == ["record", "prepare", "intend", "settle"]
