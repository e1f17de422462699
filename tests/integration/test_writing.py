"""Writing: the smallest patch, once, fenced; every way in which a write can go wrong, and what becomes of it."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from sandbox.control import API_KEY, Sandbox
from schemas.event import Event, EventState, Reason, Stage
from schemas.outcome import Source
from schemas.rhythm import PatchOperation
from tasks import sync
from tasks.steps.batch import Run
from tasks.steps.job import Job, undecided
from tasks.steps.reading import Reader
from tasks.steps.writing import send
from tasks.sync import UNMAPPED
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import wait_until
from worker.ledger import queries
from worker.ledger.audit.books import books
from worker.rhythm.batch import ItemState
from worker.sources import event_id

WRITTEN, UNCHANGED = (EventState.SYNCED, "written"), (EventState.SYNCED, "unchanged")
LOST = (EventState.READY, Reason.RHYTHM_UNAVAILABLE)
REJECTED = (EventState.DEAD, Reason.RHYTHM_REJECTED)
SHAPES = ["by_id", "by_index", "bare", "opaque"]


@pytest.fixture(autouse=True)
def balanced(client: "redis.Redis") -> Iterator[None]:
    """Whatever a test does, the books balance at its end."""
    yield
    assert books(client, TENANT).differences == ()


def stands(event: Event) -> tuple[EventState, str | None]:
    """The state, and the reason or result."""
    return event.state, event.reason or event.result


def on(pipeline: Pipeline, *ids: str) -> list[Event]:
    """Whatever waits is due, and is processed and synced."""
    pipeline.due_now()
    pipeline.process()
    pipeline.sync()
    return [pipeline.event(id) for id in ids]


def drain(pipeline: Pipeline, rounds: int = 12) -> None:
    """On and on until nothing waits."""
    for _ in range(rounds):
        waiting = [pipeline.services.redis.zcard(f"er:{TENANT}:due:{stage}") for stage in Stage]
        if not any(waiting):
            return
        on(pipeline)
    raise AssertionError("events still wait")


def seed(pipeline: Pipeline, count: int = 1, **more: Any) -> list[bytes]:
    """Registrations reg-1 ..., each of a student of its own; and a result for each."""
    numbers = range(1, count + 1)
    pipeline.rhythm.seed(ORG, [registration(f"reg-{number}", student_id=f"stu-{number}") | more for number in numbers])
    return [certiverse(f"dlv-{number}", f"reg-{number}", student=f"stu-{number}") for number in numbers]


def calls(pipeline: Pipeline, *kinds: str) -> int:
    """How many calls of these kinds Rhythm got."""
    return sum(call["kind"] in kinds for call in pipeline.rhythm.requests())


def writes(pipeline: Pipeline, id: str = "reg-1") -> list[dict[str, Any]]:
    """What each write to a registration changed, but for the registrar's."""
    return [one["changes"] for one in pipeline.rhythm.history(ORG, id) if one["by"] == "api"]


def gate(pipeline: Pipeline) -> dict[str, str]:
    return queries.gate(pipeline.services.redis, TENANT)


#: Sync's steps that may be the last one a worker does.
STEPS: list[Callable[[Run, list[Job]], object]] = [
    sync.recall, sync.consider, sync.resolve, lambda _, jobs: sync.compare(jobs), sync.intend, sync.write,
]  # fmt: skip
INTENDED, SENT = 5, 6


def begun(pipeline: Pipeline, steps: int, token: str = "slow") -> tuple[Run, list[Job]]:
    """A worker that has claimed what is due, done the first `steps` of sync, and does nothing more."""
    services = pipeline.services
    claim = services.ledger.claim(TENANT, Stage.SYNC, token, 100, 0)
    rules, turns = services.tenants[TENANT], services.gate(TENANT)
    run = Run(TENANT, rules, token, services.ledger, Reader(services.rhythm(rules, turns), turns))
    jobs = [Job(work, sync.UNREAD, UNMAPPED, claim.now, in_doubt=work.intent is not None) for work in claim.works]
    sync.read(run, jobs)
    for step in STEPS[:steps]:
        step(run, undecided(jobs))
    return run, jobs


def finish(run: Run, jobs: list[Job]) -> list[str]:
    """What the ledger says to the worker that goes on after all."""
    decisions = [job.decision for job in jobs if job.decision is not None]
    return run.ledger.apply(TENANT, Stage.SYNC, run.token, decisions)


# What is written


def test_what_rhythm_says_already_is_not_written_and_sends_no_letter(pipeline: Pipeline) -> None:
    bodies = seed(pipeline, 2, status="passed", score="82.50", exam_date="2026-05-04")
    assert [stands(event) for event in pipeline.run(*bodies)] == [UNCHANGED, UNCHANGED]
    assert (calls(pipeline, "patch", "batch"), pipeline.rhythm.letters()) == (0, [])


def test_only_the_difference_is_written(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline, score=82.5, exam_date="2026-05-04")
    pipeline.run(body)
    assert writes(pipeline) == [{"status": ["registered", "passed"]}]
    assert pipeline.registration()["exam_date"] == "2026-05-04", "its day is not made an instant"


def test_a_rescore_with_the_same_verdict_sends_no_second_letter(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    pipeline.run(body)
    pipeline.run(certiverse("dlv-1", "reg-1", score=85, rescore=True))
    assert writes(pipeline)[1] == {"score": [82.5, 85]}
    assert len(pipeline.rhythm.letters()) == 1


@pytest.mark.parametrize("count", [1, 3], ids=["a patch", "a batch"])
def test_values_may_go_out_as_text(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path, count: int) -> None:
    with pipeline_at(tmp_path, rhythm, rhythm='patch_values = "string"') as at:
        rhythm.options(values="strict_string")
        assert [stands(event) for event in at.run(*seed(at, count))] == [WRITTEN] * count
        assert at.registration()["score"] == 82.5


def test_an_operation_may_carry_an_empty_object(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> None:
    rhythm.options(batch_requires_object=True)
    with pipeline_at(tmp_path, rhythm, rhythm="batch_object = true") as at:
        assert [stands(event) for event in at.run(*seed(at, 2))] == [WRITTEN] * 2


# Calls an event


def test_a_backlog_of_a_thousand_costs_two_calls_a_hundred_by_id(pipeline: Pipeline) -> None:
    for body in seed(pipeline, 1000):
        pipeline.deliver(body)
    drain(pipeline, 40)
    assert queries.counts(pipeline.services.redis, TENANT)["synced:written"] == 1000
    assert pipeline.rhythm.counts()["by_kind"] == {"POST search": 10, "POST batch": 10}


def test_by_student_and_exam_a_look_up_an_event_is_added(pipeline: Pipeline) -> None:
    seed(pipeline, 200)
    for number in range(1, 201):
        pipeline.deliver(certiverse(f"dlv-{number}", None, student=f"stu-{number}"))
    drain(pipeline)
    assert queries.counts(pipeline.services.redis, TENANT)["synced:written"] == 200
    assert pipeline.rhythm.counts()["by_kind"] == {"GET student_exam": 200, "POST batch": 2}


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
    assert [stands(event) for event in on(pipeline, *(event.id for event in events))] == [WRITTEN] * count
    assert calls(pipeline, "patch", "batch") == 1
    assert pipeline.rhythm.counts()["writes"] == len(pipeline.rhythm.letters()) == count


def test_what_a_lost_reply_wrote_is_known_as_ours(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("apply_then_lose", kind="patch")
    (event,) = pipeline.run(*seed(pipeline))
    on(pipeline)
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
    assert [stands(event) for event in on(pipeline, *(event.id for event in events))] == [WRITTEN] * count
    assert pipeline.rhythm.counts()["writes"] == len(pipeline.rhythm.letters()) == count


def test_a_write_that_is_applied_late_counts_as_written(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("apply_late", kind="patch", delay_ms=150)
    (event,) = pipeline.run(*seed(pipeline))
    assert stands(event) == LOST
    wait_until(lambda: pipeline.registration()["sys_version"] == 2, 5, "the late write")
    assert stands(on(pipeline, event.id)[0]) == WRITTEN
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
    assert stands(on(pipeline, event.id)[0]) == WRITTEN
    assert late_patch(pipeline, 1).status_code == 400
    assert len(writes(pipeline)) == 1


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
    assert stands(on(pipeline, event.id)[0]) == (EventState.HELD, Reason.REGISTRATION_EDITED)
    assert pipeline.registration() == edited
    assert pipeline.ledger.replay(TENANT, event.id, "op", {"accept": ["registration_edited"]})[0]
    assert stands(on(pipeline, event.id)[0]) == WRITTEN


def test_a_person_s_edit_while_a_write_failed_is_read_before_the_second_try(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("reset", kind="patch")
    (event,) = pipeline.run(*seed(pipeline))
    pipeline.rhythm.edit(ORG, "reg-1", notes="called on Monday")
    assert stands(on(pipeline, event.id)[0]) == WRITTEN
    assert (pipeline.registration()["notes"], pipeline.registration()["sys_version"]) == ("called on Monday", 3)


# What Rhythm made of it


def test_a_write_that_reads_back_different_is_held_and_never_rewritten(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("alter", fields={"score": 83})
    (event,) = pipeline.run(*seed(pipeline))
    assert stands(event) == (EventState.HELD, Reason.RHYTHM_ALTERED)
    for answers, expected in (
        ({}, (EventState.HELD, Reason.REGISTRATION_SETTLED)),
        ({"accept": ["rhythm_altered"]}, UNCHANGED),
    ):
        assert pipeline.ledger.replay(TENANT, event.id, "op", answers)[0]
        assert stands(on(pipeline, event.id)[0]) == expected
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
    assert stands(on(pipeline, event.id)[0]) == WRITTEN


# Reads that are behind


def test_a_read_older_than_what_we_left_is_not_believed(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    pipeline.run(body)
    pipeline.rhythm.fault("stale", times=None)
    (rescore,) = pipeline.run(certiverse("dlv-1", "reg-1", passed=False, score=50, rescore=True))
    assert stands(rescore) == WRITTEN
    assert [call["status"] for call in pipeline.rhythm.requests() if call["kind"] == "patch"] == [200, 200]
    assert pipeline.registration()["status"] == "failed"


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
        (rescore,) = on(pipeline, rescore.id)
    pipeline.rhythm.clear_faults()
    assert stands(on(pipeline, rescore.id)[0]) == (EventState.HELD, Reason.REGISTRATION_EDITED)


# Another hand between our reading and our writing


def edited_meanwhile(pipeline: Pipeline, kind: str, act: Callable[[], object], *bodies: bytes) -> list[Event]:
    """Sync, with `act` done while the write is on its way."""
    pipeline.rhythm.fault("latency", kind=kind, ms=400)
    with ThreadPoolExecutor(1) as other:
        syncing = other.submit(pipeline.run, *bodies)
        wait_until(lambda: calls(pipeline, kind), 10, "the write")
        act()
        return syncing.result()


@pytest.mark.parametrize(("count", "kind"), [(1, "patch"), (3, "batch")], ids=["a patch", "a batch"])
def test_an_edit_between_reading_and_writing_is_kept_and_the_write_planned_anew(
    pipeline: Pipeline, count: int, kind: str
) -> None:
    bodies = seed(pipeline, count)
    first, *others = edited_meanwhile(
        pipeline, kind, lambda: pipeline.rhythm.edit(ORG, "reg-1", notes="called on Monday"), *bodies
    )
    assert (first.state, first.attempts) == (EventState.READY, 0)
    assert [stands(event) for event in others] == [WRITTEN] * (count - 1)
    assert stands(on(pipeline, first.id)[0]) == WRITTEN
    assert (pipeline.registration()["notes"], pipeline.registration()["sys_version"]) == ("called on Monday", 3)


def test_a_cancellation_between_reading_and_writing_stands(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    (event,) = edited_meanwhile(pipeline, "patch", lambda: pipeline.rhythm.edit(ORG, "reg-1", status="cancelled"), body)
    assert stands(on(pipeline, event.id)[0]) == (EventState.HELD, Reason.REGISTRATION_MISMATCH)
    assert pipeline.registration()["status"] == "cancelled"


def test_without_the_guard_such_an_edit_is_overwritten(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> None:
    with pipeline_at(tmp_path, rhythm, rhythm='guard = "none"') as at:
        (body,) = seed(at)
        (event,) = edited_meanwhile(at, "patch", lambda: rhythm.edit(ORG, "reg-1", score=12, notes="kept"), body)
        assert stands(event) == WRITTEN
        assert (at.registration()["score"], at.registration()["notes"]) == (82.5, "kept")


def test_a_result_that_comes_while_another_s_write_is_not_on_the_books_yet_waits(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    original = pipeline.deliver(body)
    pipeline.process()
    run, jobs = begun(pipeline, INTENDED)
    results = sync.write(run, jobs)
    (rescore,) = pipeline.run(certiverse("dlv-1", "reg-1", score=85, rescore=True))
    assert stands(rescore) == (EventState.READY, None)
    sync.read_answers(run, jobs, results)
    assert finish(run, jobs) == ["synced"]
    assert [stands(event) for event in on(pipeline, original, rescore.id)] == [WRITTEN, WRITTEN]


def test_a_plan_is_made_anew_when_another_result_was_settled_at_its_registration_meanwhile(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    pipeline.run(body)
    rescore = pipeline.deliver(certiverse("dlv-1", "reg-1", score=85, rescore=True))
    pipeline.process()
    run, jobs = begun(pipeline, INTENDED - 1)
    (other,) = pipeline.run(certiverse("dlv-2", "reg-1"))
    assert stands(other) == (EventState.SYNCED, "unchanged")
    sync.intend(run, jobs)
    assert [job.decision.move for job in jobs if job.decision] == ["defer"]
    finish(run, jobs)
    drain(pipeline)
    assert stands(pipeline.event(rescore)) == WRITTEN
    assert pipeline.registration()["score"] == 85


def test_of_two_results_for_one_registration_the_one_that_may_be_written_already_goes_first(pipeline: Pipeline) -> None:
    seed(pipeline)
    bodies = [certiverse(f"dlv-{number}", "reg-1", student="stu-1", score=number) for number in range(20, 24)]
    *bodies, last_in_line = sorted(bodies, key=lambda body: event_id(TENANT, Source.CERTIVERSE, "", body))
    pipeline.rhythm.fault("reset", kind="patch")
    (first,) = pipeline.run(last_in_line)
    others = [pipeline.deliver(body) for body in bodies]
    pipeline.process()
    drain(pipeline)
    assert stands(pipeline.event(first.id)) == WRITTEN
    settled = (EventState.HELD, Reason.REGISTRATION_SETTLED)
    assert {stands(pipeline.event(id)) for id in others} == {settled}


# Workers that die or wake late


@pytest.mark.parametrize("steps", range(SENT + 1))
def test_a_worker_that_dies_after_any_step_leaves_nothing_undone_and_nothing_done_twice(
    pipeline: Pipeline, steps: int
) -> None:
    ids = [pipeline.deliver(body) for body in seed(pipeline, 2)]
    pipeline.process()
    begun(pipeline, steps)
    drain(pipeline)
    assert [stands(pipeline.event(id)) for id in ids] == [WRITTEN, WRITTEN]
    assert pipeline.rhythm.counts()["writes"] == len(pipeline.rhythm.letters()) == 2


@pytest.mark.parametrize("steps", [3, 4, INTENDED], ids=["before it compares", "before it intends", "before it writes"])
def test_a_worker_that_wakes_late_changes_nothing(pipeline: Pipeline, steps: int) -> None:
    (body,) = seed(pipeline)
    id = pipeline.deliver(body)
    pipeline.process()
    run, jobs = begun(pipeline, steps)
    assert stands(on(pipeline, id)[0]) == WRITTEN
    pipeline.rhythm.edit(ORG, "reg-1", score=12)
    for step in STEPS[steps:-1]:
        step(run, undecided(jobs))
    results = sync.write(run, undecided(jobs))
    sync.read_answers(run, undecided(jobs), results)
    assert finish(run, jobs) == ["lost"]
    assert (len(writes(pipeline)), pipeline.registration()["score"]) == (1, 12)
    assert stands(pipeline.event(id)) == WRITTEN


def test_a_rescore_is_not_undone_by_the_original_s_worker_that_wakes_late(pipeline: Pipeline) -> None:
    original = pipeline.deliver(certiverse(passed=False, score=60))
    pipeline.rhythm.seed(ORG, [registration()])
    pipeline.process()
    run, jobs = begun(pipeline, INTENDED)
    on(pipeline, original)
    (rescore,) = pipeline.run(certiverse(rescore=True))
    results = sync.write(run, jobs)
    sync.read_answers(run, jobs, results)
    assert finish(run, jobs) == ["lost"]
    assert stands(rescore) == WRITTEN
    assert [change["score"][1] for change in writes(pipeline)] == [60, 82.5]


# Batches


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
    assert stands(on(pipeline, first)[0]) == WRITTEN


# A batch that is refused whole


def poison(pipeline: Pipeline, id: str) -> None:
    """An answer that makes an event's patch invalid."""
    answers = pipeline.ledger.sealer.seal_text(json.dumps({"verdict": "splendid"}), id)
    pipeline.services.redis.hset(f"er:{TENANT}:event:{id}", "answers", answers)


def test_one_poison_in_a_hundred_costs_nine_batches_at_most_and_nobody_else_anything(pipeline: Pipeline) -> None:
    pipeline.rhythm.options(batch_refuses_whole=True)
    ids = [pipeline.deliver(body) for body in seed(pipeline, 100)]
    poison(pipeline, ids[37])
    pipeline.process()
    pipeline.sync()
    told = {id: stands(pipeline.event(id)) for id in ids}
    assert told.pop(ids[37]) == REJECTED
    assert set(told.values()) == {WRITTEN}
    assert calls(pipeline, "batch") <= 9
    assert calls(pipeline, "patch", "get") <= 2
    assert len(pipeline.rhythm.letters()) == 99


@pytest.mark.parametrize("place", [0, 1, 31, 49, 50, 62, 74, 98, 99])
def test_wherever_the_poison_is_it_alone_is_refused(pipeline: Pipeline, place: int) -> None:
    pipeline.rhythm.options(batch_refuses_whole=True)
    results = sent(pipeline, 100, {place})
    assert [id for id, state in results.items() if state is ItemState.FAILED] == [f"reg-{place}"]
    assert len(results) == 100
    assert (calls(pipeline, "batch") <= 9, calls(pipeline, "patch") <= 1) == (True, True)


def sent(pipeline: Pipeline, count: int, poisoned: set[int]) -> dict[str, ItemState]:
    """Registrations reg-0 ..., patched together."""
    pipeline.rhythm.seed(ORG, [registration(f"reg-{number}") for number in range(count)])
    words = ["splendid" if number in poisoned else "passed" for number in range(count)]
    patches = {
        f"reg-{number}": [PatchOperation(op="add", path="/status", value=word)] for number, word in enumerate(words)
    }
    rhythm = pipeline.services.rhythm(pipeline.services.tenants[TENANT], pipeline.services.gate(TENANT))
    return {id: result.state for id, result in send(rhythm, patches).items()}


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("count", [2, 3, 7, 100])
def test_a_batch_that_is_refused_for_its_size_blames_nobody(pipeline: Pipeline, status: int, count: int) -> None:
    pipeline.rhythm.fault("status", kind="batch", status=status)
    assert set(sent(pipeline, count, set()).values()) == {ItemState.APPLIED}


def test_two_poisons_are_found_one_after_the_other(pipeline: Pipeline) -> None:
    pipeline.rhythm.options(batch_refuses_whole=True)
    ids = [pipeline.deliver(body) for body in seed(pipeline, 20)]
    for place in (3, 17):
        poison(pipeline, ids[place])
    drain(pipeline)
    told = [stands(pipeline.event(id)) for id in ids]
    assert [place for place, one in enumerate(told) if one == REJECTED] == [3, 17]
    assert told.count(WRITTEN) == len(pipeline.rhythm.letters()) == 18
    assert {pipeline.event(id).attempts for id in ids} == {0}


def test_what_went_through_before_the_search_was_throttled_is_not_forgotten(pipeline: Pipeline) -> None:
    pipeline.rhythm.options(batch_refuses_whole=True)
    pipeline.rhythm.fault("status", kind="batch", status=429, skip=2)
    results = sent(pipeline, 12, {11})
    assert [results[f"reg-{number}"] for number in range(12)] == [ItemState.APPLIED] * 6 + [ItemState.FAILED] * 6


def test_a_throttled_search_for_the_poison_goes_on_later(pipeline: Pipeline) -> None:
    pipeline.rhythm.options(batch_refuses_whole=True)
    pipeline.rhythm.fault("status", kind="batch", status=429, skip=2)
    ids = [pipeline.deliver(body) for body in seed(pipeline, 12)]
    poison(pipeline, ids[5])
    pipeline.process()
    pipeline.sync()
    assert gate(pipeline)["reason"] == "rhythm_throttled"
    pipeline.services.redis.hset(f"er:{TENANT}:gate", "closed_until", 0)
    drain(pipeline)
    told = [stands(pipeline.event(id)) for id in ids]
    assert (told[5], told.count(WRITTEN)) == (REJECTED, 11)
    assert len(pipeline.rhythm.letters()) == 11
