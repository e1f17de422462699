"""Settlement: what became of a write, by Rhythm's answer or by reading, whatever was lost on the way."""

from typing import Any

import pytest
import requests

from sandbox.control import API_KEY
from schemas.event import Event, EventState, Reason
from tasks import sync
from tasks.steps.job import undecided
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from tests.running import wait_until
from tests.stages import (
    INTENDED,
    STEPS,
    UNCHANGED,
    WRITTEN,
    begun,
    calls,
    drain,
    finish,
    gate,
    go_on,
    held,
    on,
    replay,
    seed,
    standing,
    stands,
    writes,
)
from worker.ledger import decisions
from worker.ledger.written import remembered

pytestmark = pytest.mark.usefixtures("balanced")
LOST = (EventState.READY, Reason.RHYTHM_UNAVAILABLE)
REJECTED = (EventState.DEAD, Reason.RHYTHM_REJECTED)
SHAPES = ["by_id", "by_index", "bare", "opaque"]


# Replies that are lost


@pytest.mark.parametrize(("count", "kind"), [(1, "patch"), (3, "batch")], ids=["a patch", "a batch"])
@pytest.mark.parametrize("stale", [False, True], ids=["", "and reads are stale"])
def test_a_lost_reply_is_settled_by_reading(pipeline: Pipeline, count: int, kind: str, stale: bool) -> None:
    pipeline.rhythm.fault("apply_then_lose", kind=kind)
    if stale:
        pipeline.rhythm.fault("stale", times=None)
    events = pipeline.run(*seed(pipeline, count))
    assert [(stands(event), event.attempts) for event in events] == [(LOST, 1)] * count
    assert "closed_until" not in gate(pipeline), "a write that fails while reads succeed closes nothing"
    go_on(pipeline)
    assert standing(pipeline, *(event.id for event in events)) == [WRITTEN] * count
    assert calls(pipeline, "patch", "batch") == 1
    assert pipeline.rhythm.counts()["writes"] == len(pipeline.rhythm.letters()) == count


def test_what_a_lost_reply_wrote_is_known_as_ours(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("apply_then_lose", kind="patch")
    (event,) = pipeline.run(*seed(pipeline))
    go_on(pipeline)
    (rescore,) = pipeline.run(certiverse("dlv-1", "reg-1", score=85, rescore=True))
    assert stands(rescore) == WRITTEN
    assert pipeline.event(event.id).result == "written"


@pytest.mark.parametrize(("count", "kind"), [(1, "patch"), (3, "batch")], ids=["a patch", "a batch"])
@pytest.mark.parametrize("action", ["reset", "status"], ids=["a reset", "a 502"])
def test_a_write_that_failed_before_it_was_applied_is_written_once(
    pipeline: Pipeline, action: str, count: int, kind: str
) -> None:
    pipeline.rhythm.fault(action, kind=kind, **({"status": 502} if action == "status" else {}))
    events = pipeline.run(*seed(pipeline, count))
    assert [(stands(event), event.attempts) for event in events] == [(LOST, 1)] * count
    go_on(pipeline)
    assert standing(pipeline, *(event.id for event in events)) == [WRITTEN] * count
    assert pipeline.rhythm.counts()["writes"] == len(pipeline.rhythm.letters()) == count


def test_a_write_that_is_applied_late_counts_as_written(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("apply_late", kind="patch", delay_ms=150)
    (event,) = pipeline.run(*seed(pipeline))
    assert stands(event) == LOST
    wait_until(lambda: pipeline.registration()["sys_version"] == 2, 5, "the late write")
    assert stands(on(pipeline, event.id)) == WRITTEN
    assert (calls(pipeline, "patch"), len(writes(pipeline))) == (1, 1)


@pytest.mark.parametrize("named", [True, False], ids=["by id", "by student"])
@pytest.mark.parametrize("steps", range(INTENDED + 1))
def test_a_write_that_is_applied_late_is_ours_whatever_the_second_try_is_at(
    pipeline: Pipeline, steps: int, named: bool
) -> None:
    (body,) = seed(pipeline) if named else [seed(pipeline) and certiverse("dlv-1", None, student="stu-1")]
    pipeline.rhythm.seed(ORG, [registration("reg-other", student_id="stu-1", exam_date="2026-04-20")])
    pipeline.rhythm.edit(ORG, "reg-1", exam_date="2026-05-04")
    pipeline.rhythm.fault("reset", kind="patch")
    (event,) = pipeline.run(body)
    pipeline.due_now()
    run, jobs = begun(pipeline, steps)
    assert late_patch(pipeline, 2, score=82.5, exam_date="2026-05-04T12:30:00Z", status="passed").ok
    for step in STEPS[steps:INTENDED]:
        step(run, undecided(jobs))
    results = sync.write(run, undecided(jobs))
    sync.read_answers(run, undecided(jobs), results)
    finish(run, jobs)
    drain(pipeline)
    assert stands(pipeline.event(event.id)) == WRITTEN
    assert (len(writes(pipeline)), writes(pipeline, "reg-other")) == (1, [])
    (rescore,) = pipeline.run(certiverse("dlv-1", "reg-1", passed=False, score=50, rescore=True))
    assert stands(rescore) == WRITTEN, "the ledger knows that it is ours"


def test_what_a_person_wrote_on_top_of_a_write_that_never_came_is_theirs(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    pipeline.rhythm.fault("reset", kind="patch")
    (event,) = pipeline.run(body)
    pipeline.rhythm.edit(ORG, "reg-1", notes="called")
    pipeline.due_now()
    run, jobs = begun(pipeline, 1)  # reads that its own can come no more
    pipeline.rhythm.edit(ORG, "reg-1", status="passed", score=82.5, exam_date="2026-05-04T12:30:00Z")
    for step in STEPS[1:4]:
        step(run, undecided(jobs))
    finish(run, jobs)
    assert stands(pipeline.event(event.id)) == UNCHANGED


def test_a_write_that_comes_later_than_its_second_try_changes_nothing(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    pipeline.rhythm.fault("reset", kind="patch")
    (event,) = pipeline.run(body)
    assert stands(on(pipeline, event.id)) == WRITTEN
    assert late_patch(pipeline, 1).status_code == 400
    assert len(writes(pipeline)) == 1


def test_a_write_in_doubt_stays_in_doubt_when_the_second_try_is_throttled(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    pipeline.rhythm.fault("reset", kind="patch")
    (event,) = pipeline.run(body)
    pipeline.rhythm.fault("status", kind="patch", status=429)
    assert on(pipeline, event.id).state is EventState.READY
    assert late_patch(pipeline, 1, score=82.5, exam_date="2026-05-04T12:30:00Z", status="passed").ok
    pipeline.services.redis.hset(f"er:{TENANT}:gate", "closed_until", 0)
    assert stands(on(pipeline, event.id)) == WRITTEN


def test_a_write_in_doubt_stays_in_doubt_while_its_event_waits_for_a_person(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    pipeline.rhythm.fault("reset", kind="patch")
    (event,) = pipeline.run(body)
    pipeline.deliver(certiverse("dlv-1", "reg-1", score=12))
    assert stands(on(pipeline, event.id)) == held(Reason.RESULT_CONFLICT)
    assert late_patch(pipeline, 1, score=82.5, exam_date="2026-05-04T12:30:00Z", status="passed").ok
    assert stands(replay(pipeline, event.id, accept=["result_conflict"])) == WRITTEN


def superseded_in_doubt(pipeline: Pipeline) -> tuple[Event, str]:
    """An original whose write may still come, superseded by a rescore; and the rescore, not yet written."""
    (body,) = seed(pipeline)
    pipeline.rhythm.fault("reset", kind="patch")
    (original,) = pipeline.run(body)
    rescore = pipeline.deliver(certiverse("dlv-1", "reg-1", passed=False, score=50, rescore=True))
    pipeline.process()
    pipeline.due_now()
    pipeline.sync()
    assert [pipeline.event(id).state for id in (original.id, rescore)] == [EventState.SUPERSEDED, EventState.READY]
    return original, rescore


def test_a_write_that_lands_after_its_event_was_superseded_is_its_delivery_s(pipeline: Pipeline) -> None:
    _, rescore = superseded_in_doubt(pipeline)
    assert late_patch(pipeline, 1, score=82.5, exam_date="2026-05-04T12:30:00Z", status="passed").ok
    drain(pipeline)
    assert stands(pipeline.event(rescore)) == WRITTEN
    assert (pipeline.registration()["status"], pipeline.registration()["score"]) == ("failed", 50)


def test_another_result_there_is_a_person_s_though_a_superseded_write_was_in_doubt(pipeline: Pipeline) -> None:
    original, rescore = superseded_in_doubt(pipeline)
    pipeline.rhythm.edit(ORG, "reg-1", status="passed", score=70, exam_date="2026-05-04T12:30:00Z")
    drain(pipeline)
    assert stands(pipeline.event(rescore)) == (EventState.HELD, Reason.REGISTRATION_SETTLED)
    assert pipeline.ledger.forget(TENANT, original.id, "op")[0]
    assert pipeline.services.redis.hget(f"er:{TENANT}:event:{original.id}", "doubt") is None


def late_patch(pipeline: Pipeline, version: int, **fields: Any) -> requests.Response:
    """A patch as ours, that was long on its way."""
    operations = [{"op": "test", "path": "/sys_version", "value": version}]
    operations += [
        {"op": "add", "path": f"/{name}", "value": value} for name, value in (fields or {"status": "failed"}).items()
    ]
    url = f"{pipeline.rhythm.url}/examRegistrations/{ORG}/reg-1"
    return requests.patch(url, json=operations, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=5)


def test_a_person_who_took_a_write_back_before_its_lost_reply_was_looked_into_is_not_overruled(
    pipeline: Pipeline,
) -> None:
    pipeline.rhythm.fault("apply_then_lose", kind="patch")
    (event,) = pipeline.run(*seed(pipeline))
    edited = pipeline.rhythm.edit(ORG, "reg-1", status="registered", score=None, exam_date=None)
    assert stands(on(pipeline, event.id)) == (EventState.HELD, Reason.REGISTRATION_EDITED)
    assert pipeline.registration() == edited
    assert pipeline.ledger.replay(TENANT, event.id, "op", {"accept": ["registration_edited"]})[0]
    assert stands(on(pipeline, event.id)) == WRITTEN


def test_a_person_s_edit_while_a_write_failed_is_read_before_the_second_try(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("reset", kind="patch")
    (event,) = pipeline.run(*seed(pipeline))
    pipeline.rhythm.edit(ORG, "reg-1", notes="called on Monday")
    assert stands(on(pipeline, event.id)) == WRITTEN
    assert (pipeline.registration()["notes"], pipeline.registration()["sys_version"]) == ("called on Monday", 3)


def test_a_write_that_reads_back_different_is_held_and_never_rewritten(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("alter", fields={"score": 83})
    (event,) = pipeline.run(*seed(pipeline))
    assert stands(event) == (EventState.HELD, Reason.RHYTHM_ALTERED)
    for answers, expected in (
        ({}, (EventState.HELD, Reason.REGISTRATION_SETTLED)),
        ({"accept": ["rhythm_altered"]}, UNCHANGED),
    ):
        assert pipeline.ledger.replay(TENANT, event.id, "op", answers)[0]
        assert stands(on(pipeline, event.id)) == expected
    assert (len(writes(pipeline)), pipeline.registration()["score"]) == (1, 83)


@pytest.mark.parametrize("shape", ["by_id", "bare"])
def test_of_a_batch_only_what_reads_back_different_is_held(pipeline: Pipeline, shape: str) -> None:
    pipeline.rhythm.options(batch_results=shape)
    pipeline.rhythm.fault("alter", fields={"status": "failed"}, ids=["reg-2"])
    # The match names the call; which registration is altered is told by its ids alone.
    events = pipeline.run(*seed(pipeline, 3))
    assert [stands(event) for event in events] == [WRITTEN, (EventState.HELD, Reason.RHYTHM_ALTERED), WRITTEN]


def test_a_refused_write_is_dead_and_says_which_status(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("status", kind="patch", status=422)
    (event,) = pipeline.run(*seed(pipeline))
    assert stands(event) == REJECTED
    assert "422" in str(event.detail)


def test_a_reference_to_what_does_not_exist_is_dead(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("status", kind="patch", status=409)
    (event,) = pipeline.run(*seed(pipeline))
    assert stands(event) == (EventState.DEAD, Reason.MISSING_REFERENCE)


def test_a_registration_that_is_deleted_before_the_write_is_looked_for_again(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("status", kind="patch", status=404)
    (event,) = pipeline.run(*seed(pipeline))
    assert (stands(event), event.attempts) == ((EventState.READY, Reason.REGISTRATION_NOT_FOUND), 1)
    assert stands(on(pipeline, event.id)) == WRITTEN


def test_a_read_older_than_what_we_left_is_not_believed(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    pipeline.run(body)
    pipeline.rhythm.fault("stale", times=None)
    (rescore,) = pipeline.run(certiverse("dlv-1", "reg-1", passed=False, score=50, rescore=True))
    assert stands(rescore) == WRITTEN
    assert [call["status"] for call in pipeline.rhythm.requests() if call["kind"] == "patch"] == [200, 200]
    assert pipeline.registration()["status"] == "failed"


def test_the_highest_version_that_was_seen_never_falls(pipeline: Pipeline) -> None:
    for body in seed(pipeline, 2):
        pipeline.deliver(body)
    pipeline.process()
    claim = pipeline.ledger.claim(TENANT, "token", 100, 0)
    for work, version in zip(claim.works, (5, 3), strict=True):
        settled = decisions.settle(work.id, "unchanged", "reg-1", sys_version=version, values="{}")
        assert pipeline.ledger.apply(TENANT, "token", [settled]) == ["synced"]
    left = remembered(pipeline.services.redis, pipeline.ledger.sealer, TENANT, ["reg-1"])
    assert left["reg-1"].sys_version == 5


def test_nor_does_it_make_a_result_unchanged(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline, status="passed", score=82.5, exam_date="2026-05-04")
    pipeline.run(body)
    pipeline.run(certiverse("dlv-1", "reg-1", passed=False, score=50, rescore=True))
    assert pipeline.registration()["status"] == "passed", "another hand wrote it, so this waits for a person"


def test_an_edit_that_reads_do_not_show_yet_is_not_overwritten(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    pipeline.run(body)
    edited = pipeline.rhythm.edit(ORG, "reg-1", score=12)
    pipeline.rhythm.fault("stale", times=None)
    (rescore,) = pipeline.run(certiverse("dlv-1", "reg-1", score=90, rescore=True))
    for _ in range(3):
        assert (rescore.state, rescore.attempts) == (EventState.READY, 0)
        assert pipeline.registration() == edited
        rescore = on(pipeline, rescore.id)
    pipeline.rhythm.clear_faults()
    assert stands(on(pipeline, rescore.id)) == (EventState.HELD, Reason.REGISTRATION_EDITED)


# The answer to a batch


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["request", "shuffled"])
def test_each_shape_of_a_batch_s_results_is_read(pipeline: Pipeline, shape: str, order: str) -> None:
    pipeline.rhythm.options(batch_results=shape, batch_order=order)
    events = pipeline.run(*seed(pipeline, 4))
    assert [stands(event) for event in events] == [WRITTEN] * 4
    assert pipeline.rhythm.counts()["by_kind"] == {"POST search": 1, "POST batch": 1}


@pytest.mark.parametrize("shape", ["by_id", "by_index"])
@pytest.mark.parametrize(
    ("status", "expected", "attempts"),
    [
        (400, REJECTED, 0),
        (409, (EventState.DEAD, Reason.MISSING_REFERENCE), 0),
        (404, (EventState.READY, Reason.REGISTRATION_NOT_FOUND), 1),
        (500, LOST, 1),
    ],
)
def test_an_error_inside_a_200_is_that_event_s_alone(
    pipeline: Pipeline, shape: str, status: int, expected: tuple[EventState, Reason], attempts: int
) -> None:
    pipeline.rhythm.options(batch_results=shape)
    pipeline.rhythm.fault("item_error", ids=["reg-2"], status=status)
    first, second, third = pipeline.run(*seed(pipeline, 3))
    assert [stands(first), stands(third)] == [WRITTEN, WRITTEN]
    assert (stands(second), second.attempts) == (expected, attempts)
    assert len(pipeline.rhythm.letters()) == 2


@pytest.mark.parametrize("shape", ["bare", "opaque"])
def test_an_error_inside_a_200_that_gives_no_reason_gets_one_alone(pipeline: Pipeline, shape: str) -> None:
    pipeline.rhythm.options(batch_results=shape)
    pipeline.rhythm.fault("item_error", ids=["reg-2"], status=400)
    pipeline.rhythm.fault("status", kind="patch", status=422)
    ids = [event.id for event in pipeline.run(*seed(pipeline, 3))]
    drain(pipeline)
    assert [stands(pipeline.event(id)) for id in ids] == [WRITTEN, REJECTED, WRITTEN]
    assert "422" in str(pipeline.event(ids[1]).detail)
    assert len(pipeline.rhythm.letters()) == 2


def test_a_read_that_fails_while_a_batch_is_settled_takes_nothing_from_the_others(pipeline: Pipeline) -> None:
    ids = {pipeline.deliver(body): f"reg-{number}" for number, body in enumerate(seed(pipeline, 3), 1)}
    pipeline.process()
    first, *others = (id.decode() for id in pipeline.services.redis.zrange(f"er:{TENANT}:due:sync", 0, -1))
    pipeline.rhythm.fault("item_error", ids=[ids[first]], status=400)
    pipeline.rhythm.fault("status", kind="get", status=503, times=2)
    pipeline.sync()
    assert [stands(pipeline.event(id)) for id in others] == [WRITTEN, WRITTEN]
    assert (stands(pipeline.event(first)), pipeline.event(first).attempts) == (LOST, 0)
    pipeline.services.redis.hset(f"er:{TENANT}:gate", "closed_until", 0)
    assert stands(on(pipeline, first)) == WRITTEN
