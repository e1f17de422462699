"""Claiming: leases, slots and turns; workers that die or wake late, and events that end every worker."""

from typing import Any

import pytest

from schemas.event import EventState, Reason, Stage
from tasks import sync
from tasks.steps.job import undecided
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from tests.running import wait_until
from tests.stages import INTENDED, SENT, STEPS, WRITTEN, begun, drain, finish, on, seed, stands, writes
from worker import celery
from worker.ledger import decisions
from worker.ledger.audit.books import books
from worker.queues import HINT_QUEUE, PROCESS, SLOT_SECONDS

pytestmark = pytest.mark.usefixtures("balanced")


# Slots and turns


def ready(pipeline: Pipeline, count: int) -> list[str]:
    """So many events that are ready."""
    ids = [pipeline.deliver(body) for body in seed(pipeline, count)]
    pipeline.process()
    return ids


def test_a_slot_is_free_again_when_a_task_can_no_longer_run_however_long_its_lease(pipeline: Pipeline) -> None:
    """A dead worker's slot, by the script with a span of 50 ms and a lease of an hour."""
    ready(pipeline, 2)

    def claim(token: str, limit: int = 1) -> list[Any]:
        claimed: list[Any] = pipeline.ledger.scripts("claim", TENANT, Stage.SYNC, limit, token, 3_600_000, 1, 50)
        return claimed

    (_, claimed_at, _, works) = claim("dies")
    assert len(works) == 1
    why_not, now, _, works = wait_until(lambda: (answer := claim("next", 2))[3] and answer, 5, "a slot")
    assert why_not == b""
    assert now >= claimed_at + 50
    assert len(works) == 1, "the dead worker's event is not due before its lease ends"
    assert claim("third")[0] == b"busy"


def test_behind_a_closed_gate_nothing_is_claimed_and_process_goes_on(pipeline: Pipeline) -> None:
    (id,) = ready(pipeline, 1)
    pipeline.services.gate(TENANT).close(Reason.RHYTHM_UNAVAILABLE, None)
    assert pipeline.ledger.claim(TENANT, Stage.SYNC, "token", 100, 1).works == ()
    assert pipeline.services.redis.hget(f"er:{TENANT}:event:{id}", "lease") is None
    other = pipeline.deliver(certiverse("dlv-2"))
    assert [work.id for work in pipeline.ledger.claim(TENANT, Stage.PROCESS, "other", 100, 1).works] == [other]


@pytest.mark.parametrize("stage", Stage)
def test_the_slot_of_a_task_ends_50_s_after_its_claim_and_not_with_its_lease(pipeline: Pipeline, stage: Stage) -> None:
    pipeline.deliver(certiverse()) if stage is Stage.PROCESS else ready(pipeline, 1)
    claim = pipeline.ledger.claim(TENANT, stage, "dies", 100, 1)
    ends = pipeline.services.redis.zscore(f"er:{TENANT}:slots:{stage}", "dies")
    leased = pipeline.services.redis.zscore(f"er:{TENANT}:due:{stage}", claim.works[0].id)
    assert ends == claim.now.timestamp() * 1000 + 1000 * SLOT_SECONDS
    assert leased is not None
    assert leased > ends


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("others", [True, False], ids=["another tenant waits", "nobody else waits"])
def test_a_task_ends_after_its_batch_when_another_tenant_waits(pipeline: Pipeline, stage: Stage, others: bool) -> None:
    bodies, client = seed(pipeline, 150), pipeline.services.redis
    for body in bodies:
        pipeline.deliver(body)
    if stage is Stage.SYNC:
        client.delete(HINT_QUEUE)
        pipeline.process()
    # Workers took this tenant's hints.
    client.delete(HINT_QUEUE, *(f"er:{TENANT}:hint:{stage}" for stage in Stage))
    if others:
        celery.app.send_task(PROCESS, args=["beta"], queue=HINT_QUEUE)
    pipeline.process() if stage is Stage.PROCESS else pipeline.sync()
    left = client.zcard(f"er:{TENANT}:due:{stage}")
    assert left == (50 if others else 0)
    assert client.zcard(f"er:{TENANT}:slots:{stage}") == 0, "its slot is free"


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
    assert stands(on(pipeline, id)) == WRITTEN
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


# Events that end their worker


@pytest.mark.parametrize("count", [1, 7, 100])
def test_a_poison_event_is_buried_alone_and_the_others_go_through(pipeline: Pipeline, count: int) -> None:
    ids = [pipeline.deliver(certiverse(f"dlv-{number}")) for number in range(count)]
    poison, crashes, claims = ids[count // 2], 0, 0
    while pipeline.event(poison).state is EventState.RECEIVED:
        claims += 1
        claim = pipeline.ledger.claim(TENANT, Stage.PROCESS, f"token-{claims}", 100, 0)
        claimed = [work.id for work in claim.works]
        if poison in claimed:
            crashes += 1  # the worker dies with the batch: nothing is settled, the lease runs out
        else:
            drops = [decisions.drop(id, EventState.IGNORED, "done") for id in claimed]
            pipeline.ledger.apply(TENANT, Stage.PROCESS, f"token-{claims}", drops)
        pipeline.due_now()
        assert claims < 60
    assert pipeline.event(poison).reason is Reason.WORKER_KILLER
    assert crashes <= {1: 3, 7: 5, 100: 9}[count]
    for _ in range(20):  # each ends at once: a hint that nobody takes here is waiting
        pipeline.process()
    states = {pipeline.event(id).state for id in ids if id != poison}
    assert states <= {EventState.IGNORED, EventState.READY}
    assert books(pipeline.services.redis, TENANT).differences == ()


def test_workers_that_are_restarted_again_and_again_bury_nothing(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    id = pipeline.deliver(certiverse())
    for restart in range(2):
        pipeline.ledger.claim(TENANT, Stage.PROCESS, f"process-{restart}", 100, 0)
        pipeline.due_now()
    pipeline.process()
    for restart in range(2):
        pipeline.ledger.claim(TENANT, Stage.SYNC, f"sync-{restart}", 100, 0)
        pipeline.due_now()
    pipeline.sync()
    assert pipeline.event(id).state is EventState.SYNCED


def test_a_poison_event_is_not_replayed_by_its_sender(pipeline: Pipeline) -> None:
    id = pipeline.deliver(certiverse())
    while pipeline.event(id).state is EventState.RECEIVED:
        pipeline.ledger.claim(TENANT, Stage.PROCESS, "token", 100, 0)
        pipeline.due_now()
    assert pipeline.deliver(certiverse()) == id
    assert pipeline.event(id).state is EventState.DEAD
    assert pipeline.event(id).receipts == 2
