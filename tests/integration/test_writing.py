"""Writing: the smallest patch, once, fenced; and the search for the one that Rhythm refuses."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from schemas.rhythm import PatchOperation
from tasks import sync
from tasks.steps.writing import send
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import wait_until
from tests.stages import (
    INTENDED,
    UNCHANGED,
    WRITTEN,
    begun,
    calls,
    drain,
    finish,
    gate,
    go_on,
    on,
    seed,
    standing,
    stands,
    writes,
)
from worker.ledger import queries
from worker.rhythm.batch import ItemState
from worker.sources import event_id

pytestmark = pytest.mark.usefixtures("balanced")
REJECTED = (EventState.DEAD, Reason.RHYTHM_REJECTED)


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


def test_a_rescore_that_changes_nothing_is_the_last_writer_of_what_its_delivery_wrote(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    pipeline.run(body)
    (rescore,) = pipeline.run(certiverse("dlv-1", "reg-1", rescore=True))
    assert stands(rescore) == UNCHANGED
    last_writer = pipeline.services.redis.hget(f"er:{TENANT}:registration:reg-1", "event")
    assert last_writer == rescore.id.encode()


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


def test_a_backlog_of_a_thousand_costs_two_calls_a_hundred_by_id(pipeline: Pipeline) -> None:
    for body in seed(pipeline, 1000):
        pipeline.deliver(body)
    drain(pipeline, 40)
    assert queries.counts(pipeline.services.redis, TENANT)["synced:written"] == 1000
    assert pipeline.rhythm.counts()["by_kind"] == {"POST search": 10, "POST batch": 10}


def test_by_student_and_exam_a_search_of_the_exam_is_added(pipeline: Pipeline) -> None:
    seed(pipeline, 200)
    for number in range(1, 201):
        pipeline.deliver(certiverse(f"dlv-{number}", None, student=f"stu-{number}"))
    drain(pipeline)
    assert queries.counts(pipeline.services.redis, TENANT)["synced:written"] == 200
    assert pipeline.rhythm.counts()["by_kind"] == {"POST search": 3, "POST batch": 2}


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
    assert stands(on(pipeline, first.id)) == WRITTEN
    assert (pipeline.registration()["notes"], pipeline.registration()["sys_version"]) == ("called on Monday", 3)


def test_a_cancellation_between_reading_and_writing_stands(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    (event,) = edited_meanwhile(pipeline, "patch", lambda: pipeline.rhythm.edit(ORG, "reg-1", status="cancelled"), body)
    assert stands(on(pipeline, event.id)) == (EventState.HELD, Reason.REGISTRATION_MISMATCH)
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
    go_on(pipeline)
    assert standing(pipeline, original, rescore.id) == [WRITTEN, WRITTEN]


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


def test_of_two_results_in_one_batch_for_one_registration_one_is_written_and_the_other_judged_afterwards(
    pipeline: Pipeline,
) -> None:
    seed(pipeline)
    bodies = [certiverse(f"dlv-{number}", "reg-1", student="stu-1", score=80 + number) for number in (1, 2)]
    events = pipeline.run(*bodies)
    assert {stands(event) for event in events} == {WRITTEN, (EventState.READY, None)}
    assert {event.attempts for event in events} == {0}
    drain(pipeline)
    ends = standing(pipeline, *(event.id for event in events))
    assert set(ends) == {WRITTEN, (EventState.HELD, Reason.REGISTRATION_SETTLED)}
    assert (len(writes(pipeline)), pipeline.registration()["score"]) == (1, 81 + ends.index(WRITTEN))


def test_of_two_workers_with_a_plan_for_one_registration_only_the_first_takes_it(pipeline: Pipeline) -> None:
    (body,) = seed(pipeline)
    plans = []
    for token, result in (("first", body), ("second", certiverse("dlv-2", "reg-1", student="stu-1", score=12))):
        pipeline.deliver(result)
        pipeline.process()
        plans.append(begun(pipeline, INTENDED - 1, token))
    for run, jobs in plans:
        sync.intend(run, jobs)
    assert [[job.decision and job.decision.move for job in jobs] for _, jobs in plans] == [[None], ["defer"]]
    drain(pipeline)
    assert len(writes(pipeline)) == 1


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
