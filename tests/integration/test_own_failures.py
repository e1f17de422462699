"""One event hurts only itself: what Rhythm fails with for one event stops no other, and an outage is nobody's fault."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from billiard.pool import soft_timeout_sighandler

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from tasks.process import process_tenant
from tasks.steps.reading import Spans
from tests.events import certiverse, registration
from tests.integration.test_gate import on, seen, state, time_is_up
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import wait_until
from tests.stages import kinds
from worker.ledger import queries
from worker.ledger.gate import GateClosed

pytestmark = pytest.mark.usefixtures("balanced")
AWAY, REFUSED, EXPIRED = Reason.RHYTHM_UNAVAILABLE, Reason.CREDENTIALS_REFUSED, Reason.RETRIES_EXPIRED
WRITTEN = (EventState.SYNCED, None, 0)
FAULTS: dict[str, dict[str, Any]] = {
    "500": {"action": "status", "status": 500},
    "503 with Retry-After": {"action": "status", "status": 503, "headers": {"Retry-After": "60"}},
    "403": {"action": "status", "status": 403},
    "401": {"action": "status", "status": 401},
    "409": {"action": "status", "status": 409},
    "414": {"action": "status", "status": 414},
    "302": {"action": "status", "status": 302, "headers": {"Location": "/elsewhere"}},
    "HTML": {"action": "status", "status": 200, "body": "<html>blocked</html>"},
    "cut JSON": {"action": "status", "status": 200, "body": '{"id": "reg-'},
    "another registration": {"action": "status", "status": 200, "body": {"id": "reg-77", "exam_id": 3, "Items": 3}},
    "huge": {"action": "status", "status": 200, "body": "x" * (16 * 2**20 + 1)},
    "hang": {"action": "hang"},
    "reset": {"action": "reset"},
}
#: What the one event is looked for by: members of its payload, the fault's own, and what its registration is found by.
READS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "student and exam": (
        {"registration": None, "student": "<script>x"},
        {"kind": "student_exam", "ids": ["<script>x"]},
    ),
    "e-mail": (
        {"registration": None, "student": None, "email": "bad@example.org"},
        {"kind": "search", "email": "bad@example.org"},
    ),
    "id": ({"registration": "reg-bad"}, {"kind": ["get", "search"], "ids": ["reg-bad"]}),
}


@pytest.fixture
def quick(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> Iterator[Pipeline]:
    """A pipeline whose calls hang for half a second at most."""
    with pipeline_at(tmp_path, rhythm, rhythm="timeout_seconds = 0.5") as built:
        yield built


def good(pipeline: Pipeline, count: int = 10, named: bool = False) -> list[bytes]:
    """Registrations reg-0 ..., each of a student of its own, and a result for each."""
    pipeline.rhythm.seed(ORG, [registration(f"reg-{n}", student_id=f"stu-{n}") for n in range(count)])
    return [certiverse(f"dlv-{n}", f"reg-{n}" if named else None, student=f"stu-{n}") for n in range(count)]


def deliver(pipeline: Pipeline, *bodies: bytes) -> list[str]:
    ids = [pipeline.deliver(body) for body in bodies]
    pipeline.process()
    return ids


def bury(pipeline: Pipeline, id: str) -> tuple[EventState, Reason | None, str]:
    """The event's next attempt is after its horizon. Where it ends."""
    three_days_ms = 72 * 3600 * 1000
    pipeline.services.redis.hincrby(f"er:{TENANT}:event:{id}", "first_attempt_at", -three_days_ms)
    on(pipeline, id)
    event = pipeline.event(id)
    return event.state, event.reason, event.detail or ""


# Reads


@pytest.mark.parametrize("by", READS)
@pytest.mark.parametrize("what", FAULTS)
def test_a_read_that_fails_for_one_event_is_that_event_s_and_the_others_are_written(
    quick: Pipeline, what: str, by: str
) -> None:
    payload, which = READS[by]
    fault = FAULTS[what] | which
    quick.rhythm.fault(fault.pop("action"), times=None, **fault)
    quick.rhythm.seed(ORG, [registration("reg-bad", student_id="<script>x", email_address="bad@example.org")])
    bad, *others = deliver(quick, certiverse("dlv-bad", **payload), *good(quick, 8, named=by == "id"))
    began = time.monotonic()
    quick.sync()
    assert time.monotonic() - began < 5
    assert [seen(quick, id) for id in others] == [WRITTEN] * 8
    assert seen(quick, bad) == (EventState.READY, AWAY, 1)
    assert state(quick) == {}, "the gate is open"
    assert "while it answers other calls" in (quick.event(bad).detail or "")
    assert quick.registration("reg-bad")["status"] == "registered", "nor is it matched by something else"
    ended = bury(quick, bad)
    assert ended[:2] == (EventState.DEAD, EXPIRED)
    assert "while it answers other calls" in ended[2]


def test_a_later_page_of_one_event_s_look_up_is_that_event_s_too(pipeline: Pipeline) -> None:
    pipeline.rhythm.options(page_size=1)
    twice = [registration(f"reg-{n}", student_id="stu-bad") for n in "ab"]
    others = deliver(pipeline, *good(pipeline, 3))
    pipeline.rhythm.seed(ORG, twice)
    (bad,) = deliver(pipeline, certiverse("dlv-bad", None, student="stu-bad"))
    pipeline.rhythm.fault("status", kind="student_exam", ids=["stu-bad"], skip=1, times=None, status=500)
    pipeline.sync()
    assert (seen(pipeline, bad), {seen(pipeline, id) for id in others}) == ((EventState.READY, AWAY, 1), {WRITTEN})


@pytest.mark.parametrize("status", [500, 403])
@pytest.mark.parametrize("place", [0, 42, 99])
def test_one_id_in_a_hundred_that_rhythm_fails_for_is_found_by_halves(
    pipeline: Pipeline, place: int, status: int
) -> None:
    ids = deliver(pipeline, *good(pipeline, 100, named=True))
    name = pipeline.services.redis.zrange(f"er:{TENANT}:due:sync", place, place)[0].decode()
    bad = f"reg-{ids.index(name)}"
    pipeline.rhythm.fault("status", kind=["get", "search"], ids=[bad], times=None, status=status)
    pipeline.sync()
    assert queries.counts(pipeline.services.redis, TENANT)["synced:written"] == 99
    assert seen(pipeline, name) == (EventState.READY, AWAY, 1)
    assert len(pipeline.rhythm.requests()) <= 23
    told = len(pipeline.rhythm.requests())
    (other,) = deliver(pipeline, certiverse("dlv-7b", "reg-7", student="stu-7"))
    on(pipeline, other)
    assert kinds(pipeline)[told:] in (["get", "get", "get"], ["get"] * 4), "apart from the others, and the probe"


def test_where_no_search_works_the_ids_are_read_one_by_one(pipeline: Pipeline) -> None:
    ids = deliver(pipeline, *good(pipeline, 100, named=True))
    pipeline.rhythm.fault("status", kind="search", times=None, status=500)
    pipeline.sync()
    assert {seen(pipeline, id) for id in ids} == {WRITTEN}
    assert kinds(pipeline).count("search") == 8


def test_a_consistent_read_that_fails_for_one_event_is_that_event_s(pipeline: Pipeline) -> None:
    bodies = good(pipeline, 3, named=True)
    ids = [event.id for event in pipeline.run(*bodies)]
    rescores = deliver(
        pipeline, *(certiverse(f"dlv-{n}", f"reg-{n}", student=f"stu-{n}", score=90, rescore=True) for n in range(3))
    )
    pipeline.rhythm.fault("stale", times=None)
    pipeline.rhythm.fault("status", kind="get", ids=["reg-1"], times=None, status=500)
    pipeline.sync()
    assert [seen(pipeline, id) for id in rescores] == [WRITTEN, (EventState.READY, AWAY, 1), WRITTEN]
    assert {seen(pipeline, id) for id in ids} == {WRITTEN}


def test_an_intent_that_cannot_be_recalled_stays_and_stops_nobody(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("apply_then_lose", kind="batch")
    ids = [event.id for event in pipeline.run(*good(pipeline, 3, named=True))]
    pipeline.rhythm.fault("status", kind=["get", "search"], ids=["reg-1"], times=None, status=403)
    on(pipeline, ids[0])
    assert [seen(pipeline, id)[0] for id in ids] == [EventState.SYNCED, EventState.READY, EventState.SYNCED]
    assert seen(pipeline, ids[1]) == (EventState.READY, AWAY, 2)
    pipeline.rhythm.clear_faults()
    on(pipeline, ids[1])
    assert pipeline.event(ids[1]).result == "written"
    assert pipeline.rhythm.counts()["writes"] == 3


# The probe


def test_an_event_that_rhythm_fails_for_cannot_keep_the_gate_closed(pipeline: Pipeline) -> None:
    bad, *others = deliver(pipeline, certiverse("dlv-bad", None, student="stu-bad"), *good(pipeline, 2))
    pipeline.services.redis.zadd(f"er:{TENANT}:due:sync", {bad: 0})
    pipeline.rhythm.fault("status", kind="student_exam", ids=["stu-bad"], times=None, status=403)
    pipeline.services.gate(TENANT).close(REFUSED, None)
    time_is_up(pipeline)
    pipeline.sync()
    assert ({seen(pipeline, id) for id in others}, seen(pipeline, bad)) == ({WRITTEN}, (EventState.READY, AWAY, 1))
    assert "reason" not in state(pipeline)


def test_many_events_that_fail_cost_two_probes_a_batch(pipeline: Pipeline) -> None:
    ids = deliver(pipeline, *good(pipeline, 30))
    pipeline.rhythm.fault("status", kind=["search", "student_exam"], times=None, status=500)
    pipeline.sync()
    assert {seen(pipeline, id) for id in ids} == {(EventState.READY, AWAY, 1)}
    assert kinds(pipeline).count("get") == 2


@pytest.mark.parametrize("status", [503, 403])
def test_rhythm_that_goes_away_in_the_middle_of_a_batch_costs_no_attempt(pipeline: Pipeline, status: int) -> None:
    """Also right after a probe that was answered: the last probe of the batch finds out."""
    ids = deliver(pipeline, *good(pipeline, 9))
    pipeline.rhythm.fault("status", kind="student_exam", skip=4, status=500)  # the fifth's own
    pipeline.rhythm.fault("status", kind=["student_exam", "batch", "patch"], skip=5, times=None, status=status)
    pipeline.rhythm.fault("status", kind="get", skip=1, times=None, status=status)
    pipeline.sync()
    told = [seen(pipeline, id) for id in ids]
    assert sum(attempts for *_, attempts in told) == 1, "the fifth's"
    assert state(pipeline)["reason"] == (AWAY if status == 503 else REFUSED)
    pipeline.rhythm.clear_faults()
    time_is_up(pipeline)
    for _ in range(2):
        on(pipeline, ids[0])
    assert {pipeline.event(id).result for id in ids} == {"written"}


@pytest.mark.parametrize("kind", ["patch", "batch"])
@pytest.mark.parametrize(("status", "reason"), [(503, AWAY), (403, REFUSED)])
def test_an_outage_that_begins_with_a_write_costs_no_attempt(
    pipeline: Pipeline, kind: str, status: int, reason: Reason
) -> None:
    ids = deliver(pipeline, *good(pipeline, 1 if kind == "patch" else 3))
    pipeline.rhythm.fault("status", kind=["patch", "batch", "get"], times=None, status=status)
    pipeline.sync()
    assert {seen(pipeline, id) for id in ids} == {(EventState.READY, reason, 0)}
    pipeline.rhythm.clear_faults()
    time_is_up(pipeline)
    on(pipeline, ids[0])
    assert {pipeline.event(id).result for id in ids} == {"written"}


# Writes


@pytest.mark.parametrize("status", [500, 403, 401, 414])
def test_a_write_that_fails_for_one_event_of_a_batch_is_that_event_s(pipeline: Pipeline, status: int) -> None:
    ids = deliver(pipeline, *good(pipeline, 11, named=True))
    pipeline.rhythm.fault("status", kind=["patch", "batch"], ids=["reg-4"], times=None, status=status)
    bad = ids[4]
    rounds = 0
    while sum(seen(pipeline, id)[0] is EventState.SYNCED for id in ids) < 10 and rounds < 6:
        pipeline.sync() if not rounds else on(pipeline, bad)
        rounds += 1
    told = {id: seen(pipeline, id) for id in ids}
    assert told.pop(bad)[:2] == (EventState.READY, AWAY)
    assert {one[0] for one in told.values()} == {EventState.SYNCED}
    assert rounds == (1 if status in (401, 403) else rounds)
    assert state(pipeline) == {}
    assert bury(pipeline, bad)[:2] == (EventState.DEAD, EXPIRED)
    assert len(pipeline.rhythm.letters()) == 10


def test_credentials_that_may_read_and_not_write_cost_no_attempt(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("status", kind=["patch", "batch"], times=None, status=403)
    ids = deliver(pipeline, *good(pipeline, 3, named=True))
    for _ in range(3):
        pipeline.sync()
        assert {seen(pipeline, id) for id in ids} == {(EventState.READY, REFUSED, 0)}
        assert state(pipeline)["reason"] == REFUSED
        time_is_up(pipeline)
        pipeline.due_now()
    pipeline.rhythm.clear_faults()
    on(pipeline, ids[0])
    assert {seen(pipeline, id) for id in ids} == {WRITTEN}


# A backlog drains


def drained(pipeline: Pipeline, ids: list[str], seconds: float) -> float:
    """Sync as hints would have it, until all are written. How long it took."""
    began = time.monotonic()

    def once() -> bool:
        pipeline.sync()
        return queries.counts(pipeline.services.redis, TENANT).get("synced:written", 0) == len(ids)

    wait_until(once, seconds, "all written")
    return time.monotonic() - began


def test_each_claim_writes_what_it_has_found_however_slow_rhythm_is(pipeline: Pipeline) -> None:
    pipeline.rhythm.options(latency_ms=150)
    ids = deliver(pipeline, *good(pipeline, 6))
    written = 0
    while written < 6:
        before = len(pipeline.rhythm.requests())
        pipeline.services.redis.delete(f"er:{TENANT}:slots")
        process_tenant(pipeline.services, TENANT, Spans(look_up=0.2))
        now = queries.counts(pipeline.services.redis, TENANT).get("synced:written", 0)
        assert now > written, "each claim makes progress"
        written = now
        assert len(pipeline.rhythm.requests()) > before
    assert kinds(pipeline).count("student_exam") == 6, "nothing is looked up twice"
    assert {seen(pipeline, id) for id in ids} == {WRITTEN}


def test_the_look_ups_have_time_of_their_own_after_a_search_that_took_long(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("latency", kind="search", times=None, ms=300)
    absent = [certiverse(f"dlv-x{n}", f"reg-x{n}", student=f"stu-{n}") for n in range(2)]
    good(pipeline, 2)
    ids = deliver(pipeline, *absent)
    process_tenant(pipeline.services, TENANT, Spans(look_up=0.1))
    assert EventState.SYNCED in {seen(pipeline, id)[0] for id in ids}


@pytest.mark.parametrize("told", ["seconds", "none"])
def test_a_backlog_drains_though_rhythm_throttles_every_thirty_calls(pipeline: Pipeline, told: str) -> None:
    ids = deliver(pipeline, *good(pipeline, 24))
    pipeline.rhythm.fault("status", kind="search", status=500)  # so that each is looked up alone
    pipeline.rhythm.options(rate_limit={"calls_per_second": 15, "burst": 10, "retry_after": told})
    assert drained(pipeline, ids, 25) < 25
    assert kinds(pipeline).count("student_exam") <= 28, "what was found is not looked up again"


def test_a_throttled_write_waits_with_what_its_look_ups_have_found(pipeline: Pipeline) -> None:
    ids = deliver(pipeline, *good(pipeline, 5))
    pipeline.rhythm.fault("status", kind="batch", status=429, headers={"Retry-After": "1"})
    pipeline.sync()
    assert {seen(pipeline, id) for id in ids} == {WRITTEN}
    calls = pipeline.rhythm.requests()
    throttled = next(call for call in calls if call["status"] == 429)
    assert min(call["at"] for call in calls if call["n"] > throttled["n"]) >= throttled["ended_at"] + 1
    assert kinds(pipeline).count("student_exam") == 5


def test_a_closed_gate_never_says_that_it_opens_earlier_than_it_does(pipeline: Pipeline) -> None:
    """Who waits so long is let through: a millisecond too few made the whole batch look everything up again."""
    gate = pipeline.services.gate(TENANT)
    gate.close(Reason.RHYTHM_UNAVAILABLE, timedelta(seconds=5))
    closed_until = float(state(pipeline)["closed_until"])
    for _ in range(50):
        with pytest.raises(GateClosed) as closed:
            gate.take()
        seconds, microseconds = pipeline.services.redis.time()
        assert closed.value.retry_after is not None
        assert (
            seconds * 1000 + microseconds / 1000 + closed.value.retry_after / timedelta(milliseconds=1) >= closed_until
        )


def test_what_is_put_back_is_not_movement(pipeline: Pipeline) -> None:
    deliver(pipeline, *good(pipeline, 2))
    moved = f"er:{TENANT}:moved"
    pipeline.rhythm.fault("status", times=None, status=503)
    pipeline.sync()
    assert pipeline.services.redis.get(moved) is None
    pipeline.rhythm.clear_faults()
    pipeline.rhythm.fault("status", kind="student_exam", times=None, status=500)
    time_is_up(pipeline)
    pipeline.due_now()
    pipeline.sync()
    assert pipeline.services.redis.get(moved) is not None, "an attempt is"


@pytest.fixture
def soft_time_limit() -> Iterator[threading.Timer]:
    """A timer that does at its end what Celery does when a task's soft time limit is over: its signal, its handler."""
    before = signal.signal(signal.SIGUSR1, soft_timeout_sighandler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    yield timer
    timer.cancel()
    timer.join()
    signal.signal(signal.SIGUSR1, before)


def test_a_task_whose_time_is_up_gives_back_what_it_has(pipeline: Pipeline, soft_time_limit: threading.Timer) -> None:
    """It is in the middle of a call to Rhythm, which takes 5 s."""
    pipeline.rhythm.fault("latency", kind="student_exam", ids=["stu-1"], ms=5000)
    ids = deliver(pipeline, *good(pipeline, 2))
    soft_time_limit.start()
    began = time.monotonic()
    pipeline.sync()
    assert time.monotonic() - began < 4
    assert {seen(pipeline, id)[1:] for id in ids} == {(AWAY, 0)}
    leases = [pipeline.services.redis.hget(f"er:{TENANT}:event:{id}", "lease") for id in ids]
    assert leases == [None, None]
