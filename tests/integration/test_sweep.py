"""The scheduled pass: what it hints, what it leaves alone, what it prunes."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from schemas.event import EventState, Reason
from tasks.sweep import PROBE_SECONDS, sweep_tenants
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from worker.ledger import queries
from worker.ledger.audit.books import books
from worker.queues import RECEIVE_QUEUE, TAKEN

QUEUE = "examrelay"


@pytest.fixture
def swept(pipeline: Pipeline) -> Pipeline:
    """A pipeline with an event whose hint was lost."""
    pipeline.rhythm.seed(ORG, [registration()])
    pipeline.deliver(certiverse())
    pipeline.services.redis.delete(QUEUE)
    return pipeline


def hint_is_old(pipeline: Pipeline) -> None:
    """As if the hint under way had been asked for long ago."""
    pipeline.services.redis.set(f"er:{TENANT}:hint", 0)


def test_a_sweep_that_finds_nothing_says_nothing(pipeline: Pipeline) -> None:
    with capture_logs() as logs:
        assert sweep_tenants(pipeline.services) == {"hinted": 0, "pruned": 0}
    assert logs == []
    assert queries.swept_at(pipeline.services.redis) is not None


def test_due_work_is_hinted_once_its_hint_is_older_than_five_seconds(swept: Pipeline) -> None:
    assert sweep_tenants(swept.services)["hinted"] == 0, "its hint may still be under way"
    hint_is_old(swept)
    with capture_logs() as logs:
        assert sweep_tenants(swept.services)["hinted"] == 1
    assert [line["event"] for line in logs] == ["sweep.finished"]
    assert sweep_tenants(swept.services)["hinted"] == 0, "that hint is under way now"
    assert swept.services.redis.llen(QUEUE) == 1


def test_what_a_worker_took_and_did_not_note_is_next_again_and_in_its_order(pipeline: Pipeline) -> None:
    client = pipeline.services.redis
    client.lpush(RECEIVE_QUEUE, "first", "second", "third")
    for _ in range(2):
        client.lmove(RECEIVE_QUEUE, TAKEN, "RIGHT", "LEFT")
    sweep_tenants(pipeline.services)
    assert client.rpop(RECEIVE_QUEUE, 4) == [b"first", b"second", b"third"]
    client.lpush(TAKEN, *range(103))
    pipeline.ledger.sweep(TENANT, timedelta(seconds=5), 10)
    assert client.llen(TAKEN) == 3, "a sweep is short"


def test_sweeps_of_two_beats_and_two_crons_at_once_hint_once(swept: Pipeline) -> None:
    hint_is_old(swept)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: sweep_tenants(swept.services)["hinted"], range(12)))
    assert sum(done) == 1
    assert swept.services.redis.llen(QUEUE) == 1


def test_work_behind_a_closed_gate_is_not_hinted(swept: Pipeline) -> None:
    swept.process()
    swept.services.gate(TENANT).close(Reason.RHYTHM_UNAVAILABLE, None)
    hint_is_old(swept)
    assert sweep_tenants(swept.services)["hinted"] == 0
    swept.services.redis.hset(f"er:{TENANT}:gate", "closed_until", 0)
    assert sweep_tenants(swept.services)["hinted"] == 1


def test_final_events_are_pruned_when_they_are_old_and_stay_accounted_for(swept: Pipeline) -> None:
    swept.process()
    swept.sync()
    waiting = swept.deliver(b"not JSON")
    swept.process()
    client = swept.services.redis
    age = -1000  # "older" than a second from now: as if 400 days had passed
    *_, pruned = swept.ledger.scripts("sweep", TENANT, 5000, age, 100)
    assert pruned == 1
    assert swept.event(waiting).state is EventState.DEAD, "what waits for a person is never pruned"
    found = books(client, TENANT)
    assert (found.accepted, found.accounted, found.pruned, found.differences) == (2, 1, 1, ())


@pytest.fixture
def closed(pipeline: Pipeline) -> Pipeline:
    """A gate that an outage has closed, its pause over, and nothing to do."""
    pipeline.services.gate(TENANT).close(Reason.RHYTHM_UNAVAILABLE, None)
    pipeline.services.redis.hset(f"er:{TENANT}:gate", "closed_until", 1)
    return pipeline


def reason(pipeline: Pipeline) -> str | None:
    return queries.gate(pipeline.services.redis, TENANT).get("reason")


def test_a_gate_over_its_pause_is_probed_for_a_tenant_without_work(closed: Pipeline) -> None:
    sweep_tenants(closed.services)
    assert reason(closed) is None
    assert [call["kind"] for call in closed.rhythm.requests()] == ["get"]
    sweep_tenants(closed.services)
    assert len(closed.rhythm.requests()) == 1, "an open gate needs no probe"


def test_while_the_outage_lasts_a_probe_closes_it_for_longer(closed: Pipeline) -> None:
    closed.rhythm.fault("status", status=503, times=None)
    sweep_tenants(closed.services)
    kept = queries.gate(closed.services.redis, TENANT)
    assert (kept["reason"], kept["failures"]) == ("rhythm_unavailable", "2")
    sweep_tenants(closed.services)
    assert len(closed.rhythm.requests()) == 1, "nobody calls before the pause is over"


def test_a_probe_under_way_is_left_alone(closed: Pipeline) -> None:
    closed.services.gate(TENANT).take()
    sweep_tenants(closed.services)
    assert closed.rhythm.requests() == []
    assert reason(closed) == "rhythm_unavailable"


def test_work_that_is_due_probes_by_itself_unless_nobody_does_it(swept: Pipeline) -> None:
    swept.process()
    swept.services.gate(TENANT).close(Reason.RHYTHM_UNAVAILABLE, None)
    now = int(queries.redis_now(swept.services.redis).timestamp() * 1000)
    swept.services.redis.hset(f"er:{TENANT}:gate", "closed_until", now)
    sweep_tenants(swept.services)
    assert swept.rhythm.requests() == []
    swept.services.redis.hset(f"er:{TENANT}:gate", "closed_until", now - 6000)
    sweep_tenants(swept.services)
    assert reason(swept) is None


def test_a_hanging_rhythm_holds_a_sweep_up_for_seconds_and_after_its_work(swept: Pipeline) -> None:
    """For a third of the time that a call may take."""
    swept.services.gate(TENANT).close(Reason.RHYTHM_UNAVAILABLE, None)
    swept.services.redis.hset(f"er:{TENANT}:gate", "closed_until", 1)
    hint_is_old(swept)
    swept.rhythm.fault("hang", times=None)
    began = time.monotonic()
    assert sweep_tenants(swept.services)["hinted"] == 1
    assert time.monotonic() - began < PROBE_SECONDS + 2
    assert reason(swept) == "rhythm_unavailable"


def test_pruning_goes_on_behind_events_that_wait_however_many_are_older(swept: Pipeline) -> None:
    """A pass that prunes one looks at ten: here 25 that wait are the oldest, and some are discarded later."""
    swept.services.redis.zremrangebyscore(f"er:{TENANT}:due:process", "-inf", "+inf")
    waiting = [swept.run(f"not JSON {number}".encode())[0].id for number in range(25)]
    final = [swept.run(b"{" + f"not JSON {number}".encode())[0].id for number in range(3)]
    for id in final:
        assert swept.ledger.discard(TENANT, id, "op", "test")[0]

    def passes(count: int) -> list[int]:
        return [swept.ledger.scripts("sweep", TENANT, 5000, -1000, 1)[1] for _ in range(count)]

    assert sum(passes(6)) == 3
    assert swept.ledger.discard(TENANT, waiting[0], "op", "test")[0]
    assert sum(passes(4)) == 1, "after the youngest it begins again with the oldest"
    assert [swept.event(id).state for id in waiting[1:]] == [EventState.DEAD] * 24
    found = books(swept.services.redis, TENANT)
    assert (found.accepted, found.accounted, found.pruned) == (29, 25, 4)
