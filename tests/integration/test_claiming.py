"""Claiming: leases, slots and turns; workers that die or wake late, and events that end every worker."""

from typing import Any

import pytest

from schemas.event import EventState, Reason
from tasks import sync
from tasks.steps.job import undecided
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from tests.running import wait_until
from tests.stages import INTENDED, SENT, STEPS, WRITTEN, a_moment_later, begun, drain, finish, on, seed, stands, writes
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
        claimed: list[Any] = pipeline.ledger.scripts("claim", TENANT, limit, token, 3_600_000, 1, 50)
        return claimed

    claimed_at, _, works, _ = claim("dies")
    assert len(works) == 1
    assert claim("third")[2] == [], "its slot is taken"
    now, _, works, _ = wait_until(lambda: (answer := claim("next", 2))[2] and answer, 5, "a slot")
    assert now >= claimed_at + 50
    assert len(works) == 1, "the dead worker's event is not due before its lease ends"


def test_behind_a_closed_gate_only_what_is_not_prepared_is_claimed(pipeline: Pipeline) -> None:
    (id,) = ready(pipeline, 1)
    pipeline.services.gate(TENANT).close(Reason.RHYTHM_UNAVAILABLE, None)
    assert pipeline.ledger.claim(TENANT, "token", 100, 1).works == ()
    assert pipeline.services.redis.hget(f"er:{TENANT}:event:{id}", "lease") is None
    other = pipeline.deliver(certiverse("dlv-2"))
    assert [work.id for work in pipeline.ledger.claim(TENANT, "other", 100, 1).works] == [other]


def test_what_is_most_overdue_is_claimed_first_prepared_or_not(pipeline: Pipeline) -> None:
    """So neither waits behind a backlog of the other."""
    prepared, due = ready(pipeline, 2), [f"er:{TENANT}:due:{name}" for name in ("sync", "process")]
    received = [pipeline.deliver(certiverse(f"dlv-{number}")) for number in (3, 4)]
    for index, (early, late) in zip(due, (prepared, received), strict=True):
        pipeline.services.redis.zadd(index, {early: 1, late: 2})
    first = [work.id for work in pipeline.ledger.claim(TENANT, "one", 2, 0).works]
    assert sorted(first) == sorted([prepared[0], received[0]])
    assert len(pipeline.ledger.claim(TENANT, "other", 100, 0).works) == 2


def test_a_tenant_has_no_more_tasks_than_its_concurrency_whatever_they_have_claimed(pipeline: Pipeline) -> None:
    """So it bounds what calls Rhythm: each task may."""
    ready(pipeline, 1)
    pipeline.deliver(certiverse("dlv-2"))
    assert len(pipeline.ledger.claim(TENANT, "one", 1, 2).works) == 1
    assert len(pipeline.ledger.claim(TENANT, "two", 1, 2).works) == 1
    pipeline.deliver(certiverse("dlv-3"))
    assert pipeline.ledger.claim(TENANT, "three", 1, 2).works == ()
    pipeline.ledger.apply(TENANT, "one", [], last=True)
    assert len(pipeline.ledger.claim(TENANT, "three", 1, 2).works) == 1


STATES = {EventState.RECEIVED: "due:process", EventState.READY: "due:sync"}


@pytest.mark.parametrize("state", STATES)
def test_the_slot_of_a_task_ends_50_s_after_its_claim_and_not_with_its_lease(
    pipeline: Pipeline, state: EventState
) -> None:
    pipeline.deliver(certiverse()) if state is EventState.RECEIVED else ready(pipeline, 1)
    claim = pipeline.ledger.claim(TENANT, "dies", 100, 1)
    ends = pipeline.services.redis.zscore(f"er:{TENANT}:slots", "dies")
    leased = pipeline.services.redis.zscore(f"er:{TENANT}:{STATES[state]}", claim.works[0].id)
    assert ends == claim.now.timestamp() * 1000 + 1000 * SLOT_SECONDS
    assert leased is not None
    assert leased > ends


def test_an_event_is_claimed_for_no_longer_when_it_is_prepared(pipeline: Pipeline) -> None:
    id, redis = pipeline.deliver(certiverse()), pipeline.services.redis
    claim = pipeline.ledger.claim(TENANT, "token", 100, 0)
    lease_ends = redis.zscore(f"er:{TENANT}:due:process", id)
    a_moment_later(pipeline, id)
    pipeline.read("token", claim)
    assert (pipeline.event(id).state, redis.zscore(f"er:{TENANT}:due:process", id)) == (EventState.READY, None)
    assert redis.zscore(f"er:{TENANT}:due:sync", id) == lease_ends
    assert redis.hget(f"er:{TENANT}:event:{id}", "lease") == b"token"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("others", [True, False], ids=["another tenant waits", "nobody else waits"])
def test_a_task_ends_after_its_batch_when_another_tenant_waits(
    pipeline: Pipeline, state: EventState, others: bool
) -> None:
    bodies, client = seed(pipeline, 150), pipeline.services.redis
    for body in bodies:
        pipeline.deliver(body)
    if state is EventState.READY:
        client.delete(HINT_QUEUE)
        pipeline.process()
    client.delete(HINT_QUEUE, f"er:{TENANT}:hint")  # workers took this tenant's hints
    if others:
        celery.app.send_task(PROCESS, args=["beta"], queue=HINT_QUEUE)
    pipeline.sync()
    left = client.zcard(f"er:{TENANT}:{STATES[state]}")
    assert left == (50 if others else 0)
    assert client.zcard(f"er:{TENANT}:slots") == 0, "its slot is free"


# Workers that die or wake late


@pytest.mark.parametrize("way", ["what is received", "what is ready"])
@pytest.mark.parametrize("steps", ["claim", *range(SENT + 1)])
def test_a_worker_that_dies_after_any_step_leaves_nothing_undone_and_nothing_done_twice(
    pipeline: Pipeline, steps: int | str, way: str
) -> None:
    ids = [pipeline.deliver(body) for body in seed(pipeline, 2)]
    if way == "what is ready":
        pipeline.process()
    begun(pipeline, steps) if isinstance(steps, int) else pipeline.ledger.claim(TENANT, "dies", 100, 0)
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
        claim = pipeline.ledger.claim(TENANT, f"token-{claims}", 100, 0)
        claimed = [work.id for work in claim.works]
        if poison in claimed:
            crashes += 1  # the worker dies with the batch: nothing is settled, the lease runs out
        else:
            drops = [decisions.drop(id, EventState.IGNORED, "done") for id in claimed]
            pipeline.ledger.apply(TENANT, f"token-{claims}", drops)
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
        pipeline.ledger.claim(TENANT, f"process-{restart}", 100, 0)
        pipeline.due_now()
    pipeline.process()
    for restart in range(2):
        pipeline.ledger.claim(TENANT, f"sync-{restart}", 100, 0)
        pipeline.due_now()
    pipeline.sync()
    assert pipeline.event(id).state is EventState.SYNCED


def test_a_poison_event_is_not_replayed_by_its_sender(pipeline: Pipeline) -> None:
    id = pipeline.deliver(certiverse())
    while pipeline.event(id).state is EventState.RECEIVED:
        pipeline.ledger.claim(TENANT, "token", 100, 0)
        pipeline.due_now()
    assert pipeline.deliver(certiverse()) == id
    assert pipeline.event(id).state is EventState.DEAD
    assert pipeline.event(id).receipts == 2
