"""Answers are checked before anything moves, and each event that was named is shown with its state."""

from datetime import timedelta
from typing import Any

import pytest

from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from tasks.operator.listing import Filters
from tests.commands import command
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from worker.cli import steer
from worker.cli.steer import Scope
from worker.errors import Unchecked


def replayed(pipeline: Pipeline, *ids: str, **more: Any) -> bool:
    answers = {name: more.pop(name) for name in ("registration", "verdict", "accept") if name in more}
    state = more.pop("state", None)
    return steer.move_events(
        pipeline.services, Filters(ids=ids, state=state), "replay", Scope(yes=True, **more), answers
    )


@pytest.fixture
def unmatched(pipeline: Pipeline) -> Event:
    """Ready: no registration of this person yet."""
    pipeline.rhythm.seed(
        ORG,
        [
            registration("reg-2", student_id="stu-2", email_address="x@example.org"),
            registration("reg-exam-2", exam_id="exam-2"),
            registration("reg-draft", status="draft"),
            registration("reg-off", status="cancelled"),
        ],
    )
    (event,) = pipeline.run(certiverse(student=None, email="nobody@example.org"))
    assert (event.state, event.reason) == (EventState.READY, Reason.REGISTRATION_NOT_FOUND)
    return event


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("reg-twoo", "Rhythm has no registration reg-twoo"),
        ("x@example.org", "that cannot be the id of a registration"),
        ("", "that cannot be the id of a registration"),
        ("reg-exam-2", "registration reg-exam-2 is for exam exam-2, the result for exam-1"),
        ("reg-draft", "registration reg-draft is draft"),
        ("reg-off", "registration reg-off is cancelled"),
    ],
)
def test_a_registration_that_cannot_be_it_is_refused_and_nothing_moves(
    pipeline: Pipeline, unmatched: Event, capsys: pytest.CaptureFixture[str], named: str, told: str
) -> None:
    assert not replayed(pipeline, unmatched.id, registration=named)
    assert capsys.readouterr().err == f"examrelay: nothing was done: {told}\n"
    assert pipeline.event(unmatched.id) == unmatched


def test_a_registration_that_can_be_it_is_shown_and_written(
    pipeline: Pipeline, unmatched: Event, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replayed(pipeline, unmatched.id, registration="reg-2")
    assert capsys.readouterr().out.splitlines()[0] == "registration reg-2 is registered, for exam exam-1"
    pipeline.process()
    pipeline.sync()
    assert pipeline.event(unmatched.id).result == "written"


@pytest.mark.parametrize("why", ["closed", "down", "throttled"])
def test_a_rhythm_that_cannot_be_asked_leaves_everything_as_it_was(
    pipeline: Pipeline, unmatched: Event, why: str
) -> None:
    if why == "closed":
        pipeline.services.gate(TENANT).close(Reason.RHYTHM_UNAVAILABLE, timedelta(seconds=60))
    else:
        pipeline.rhythm.fault("status", status=503 if why == "down" else 429, times=None)
    with pytest.raises(Unchecked, match="Rhythm cannot be asked for registration reg-2 now"):
        replayed(pipeline, unmatched.id, registration="reg-2")
    assert pipeline.event(unmatched.id) == unmatched


def test_a_rhythm_that_may_not_be_called_is_exit_code_3(pipeline: Pipeline, unmatched: Event) -> None:
    pipeline.services.gate(TENANT).close(Reason.RHYTHM_UNAVAILABLE, timedelta(seconds=60))
    config = pipeline.services.settings.config
    done = command(config, "replay", "--id", unmatched.id, "--registration", "reg-2", "--yes")
    assert (done.returncode, done.stdout) == (3, "")
    assert "the gate is closed (rhythm_unavailable); `examrelay status`" in done.stderr


def test_a_payload_that_cannot_be_read_has_no_registration(
    pipeline: Pipeline, unmatched: Event, capsys: pytest.CaptureFixture[str]
) -> None:
    (dead,) = pipeline.run(b"not JSON")
    assert not replayed(pipeline, dead.id, registration="reg-2")
    assert "cannot be used (invalid_json" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [{"verdict": "passed"}, {"accept": ["registration_settled"]}])
def test_an_answer_that_no_event_needs_is_refused(
    pipeline: Pipeline, unmatched: Event, capsys: pytest.CaptureFixture[str], answer: dict[str, Any]
) -> None:
    assert not replayed(pipeline, unmatched.id, **answer)
    assert "answers nothing there" in capsys.readouterr().err
    assert pipeline.event(unmatched.id) == unmatched


def test_of_several_accepted_reasons_an_event_keeps_its_own_alone(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    (event,) = pipeline.run(certiverse(termination="proctor"))
    assert replayed(pipeline, event.id, accept=["integrity_review", "registration_settled"])
    found = pipeline.ledger.look(TENANT, event.id)
    assert found is not None
    assert found.accepts == {Reason.INTEGRITY_REVIEW}


def test_each_event_that_was_named_says_where_it_stands(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    synced, stopped = pipeline.run(certiverse(), b"not JSON")
    leased = pipeline.deliver(certiverse("dlv-2"))
    pipeline.ledger.claim(TENANT, "token", 1, 0)
    waits = pipeline.deliver(certiverse("dlv-3"), Source.CERTIVERSE)
    ids = (synced.id, "evt_nothing", stopped.id.upper(), stopped.id[:-1])
    assert not replayed(pipeline, *ids, stopped.id, waits)
    assert capsys.readouterr().err.replace("examrelay: ", "").splitlines() == [
        f"{synced.id} of tenant acme is synced (written): that is final, there is nothing to replay",
        *(f"there is no event {id}; `examrelay events list` shows what there is" for id in ids[1:]),
        "nothing was done: 4 cannot be moved so. --keep-going replays the others",
    ]
    assert not replayed(pipeline, *ids, stopped.id, waits, keep_going=True)
    assert capsys.readouterr().out.splitlines()[:1] == ["2 events to replay"]
    assert pipeline.event(stopped.id).state is EventState.RECEIVED
    assert not replayed(pipeline, leased)
    assert capsys.readouterr().err == (
        f"examrelay: {leased} was not moved: it is received, and a worker is at it: try again in 120 s\n"
    )
    assert not replayed(pipeline, waits, state=EventState.READY)
    assert "is received" in (told := capsys.readouterr().err)
    assert ", due at " in told
    assert "the other filters exclude it" in told
    with pytest.raises(Exception, match="there is no tenant beta"):
        steer.move_events(pipeline.services, Filters(tenant="beta", ids=(waits,)), "discard", Scope(yes=True))


def test_an_id_that_does_not_move_ends_with_1(pipeline: Pipeline) -> None:
    done = command(pipeline.services.settings.config, "replay", "--id", "evt_nothing", "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no event evt_nothing" in done.stderr


def test_waiting_events_are_taken_when_they_are_asked_for(
    pipeline: Pipeline, unmatched: Event, capsys: pytest.CaptureFixture[str]
) -> None:
    at = pipeline.services
    assert steer.move_events(at, Filters(reason="registration_not_found"), "replay", Scope(yes=True))
    shown = capsys.readouterr()
    assert shown.out == "0 events to replay\n"
    assert "without --state and --id only held and dead events are taken" in shown.err
    found = Filters(reason="registration_not_found", state=EventState.READY)
    assert steer.move_events(at, found, "discard", Scope(yes=True, why="they left"))
    assert pipeline.event(unmatched.id).state is EventState.DISCARDED
