"""The gate: while Rhythm throttles, does not answer or refuses us, nobody calls and no event spends an attempt."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import wait_until
from worker.ledger import queries
from worker.ledger.audit.books import books
from worker.ledger.gate import Gate, GateClosed

THROTTLED, AWAY, REFUSED = Reason.RHYTHM_THROTTLED, Reason.RHYTHM_UNAVAILABLE, Reason.CREDENTIALS_REFUSED
GATE = f"er:{TENANT}:gate"


@pytest.fixture(autouse=True)
def balanced(client: "redis.Redis") -> Iterator[None]:
    """Whatever a test does, the ledger's counts are right at its end."""
    yield
    assert books(client, TENANT).differences == ()


@pytest.fixture
def paced(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> Iterator[Callable[[float], Pipeline]]:
    """Makes a pipeline with this many calls a second."""
    made: list[Any] = []

    def make(calls_per_second: float) -> Pipeline:
        made.append(pipeline_at(tmp_path, rhythm, rhythm=f"calls_per_second = {calls_per_second}"))
        return made[-1].__enter__()  # type: ignore[no-any-return]

    yield make
    for one in made:
        one.__exit__(None, None, None)


def seed(pipeline: Pipeline, count: int = 1, named: bool = True) -> list[bytes]:
    """Registrations reg-1 ..., each of a student of its own; and a result for each."""
    numbers = range(1, count + 1)
    pipeline.rhythm.seed(ORG, [registration(f"reg-{number}", student_id=f"stu-{number}") for number in numbers])
    return [certiverse(f"dlv-{n}", f"reg-{n}" if named else None, student=f"stu-{n}") for n in numbers]


def state(pipeline: Pipeline) -> dict[str, str]:
    return queries.gate(pipeline.services.redis, TENANT)


def closed_for(pipeline: Pipeline) -> float:
    """Seconds until the gate's time is up, by Redis' clock."""
    now = queries.redis_now(pipeline.services.redis).timestamp()
    return int(state(pipeline).get("closed_until", 0)) / 1000 - now


def time_is_up(pipeline: Pipeline) -> None:
    """The pause is over: the clock is Redis', so the time is moved."""
    pipeline.services.redis.hset(GATE, mapping={"closed_until": 0, "next": 0})


def on(pipeline: Pipeline, id: str) -> tuple[EventState, Reason | None, int]:
    """Makes everything that waits due and syncs it. Returns the event's state, reason and attempts."""
    pipeline.due_now()
    pipeline.sync()
    return seen(pipeline, id)


def seen(pipeline: Pipeline, id: str) -> tuple[EventState, Reason | None, int]:
    event = pipeline.event(id)
    return event.state, event.reason, event.attempts


def gates(pipeline: Pipeline) -> Gate:
    """The gate as a task of its own sees it."""
    return pipeline.services.gate(TENANT)


SYNCED = (EventState.SYNCED, None, 0)


@pytest.mark.parametrize(
    ("kind", "count"),
    [("get", 1), ("search", 3), ("patch", 1), ("batch", 3)],
    ids=["on a read", "on a search", "on a patch", "on a batch"],
)
def test_nobody_calls_before_retry_after_and_no_attempt_is_spent(pipeline: Pipeline, kind: str, count: int) -> None:
    pipeline.rhythm.fault("status", kind=kind, status=429, headers={"Retry-After": "1"})
    events = pipeline.run(*seed(pipeline, count))
    assert {seen(pipeline, event.id) for event in events} == {(EventState.READY, THROTTLED, 0)}
    assert 0 < closed_for(pipeline) <= 1
    told = len(pipeline.rhythm.requests())
    while closed_for(pipeline) > 0.2:
        on(pipeline, events[0].id)
    assert len(pipeline.rhythm.requests()) == told
    wait_until(lambda: on(pipeline, events[0].id) == SYNCED, 5, "the gate")
    calls = pipeline.rhythm.requests()
    throttled = next(call for call in calls if call["status"] == 429)
    after = [call for call in calls if call["n"] > throttled["n"]]
    assert min(call["at"] for call in after) >= throttled["ended_at"] + 1
    assert {seen(pipeline, event.id) for event in events} == {SYNCED}
    assert pipeline.rhythm.counts()["writes"] == count


@pytest.mark.parametrize("told", [{}, {"Retry-After": "soon"}, {"Retry-After": "0"}])
def test_a_429_that_does_not_say_how_long_is_given_a_growing_pause(pipeline: Pipeline, told: dict[str, str]) -> None:
    pipeline.rhythm.fault("status", kind="get", times=None, status=429, headers=told)
    (event,) = pipeline.run(*seed(pipeline))
    pauses = []
    for _ in range(7):
        pauses.append(closed_for(pipeline))
        time_is_up(pipeline)
        assert on(pipeline, event.id) == (EventState.READY, THROTTLED, 0)
    ceilings = [min(60, 2 * 2**failure) for failure in range(7)]
    assert all(top / 2 - 0.5 <= pause <= top for pause, top in zip(pauses, ceilings, strict=True))


@pytest.mark.parametrize(("status", "reason"), [(503, AWAY), (500, AWAY), (401, REFUSED), (403, REFUSED)])
def test_while_rhythm_is_away_or_refuses_us_events_wait_and_spend_no_attempt(
    pipeline: Pipeline, status: int, reason: Reason
) -> None:
    pipeline.rhythm.fault("status", times=None, status=status)
    first, *_ = pipeline.run(*seed(pipeline, 3))
    for _ in range(3):
        assert seen(pipeline, first.id) == (EventState.READY, reason, 0)
        assert state(pipeline)["reason"] == reason
        told = len(pipeline.rhythm.requests())
        on(pipeline, first.id)
        assert len(pipeline.rhythm.requests()) == told, "closed: nobody calls"
        time_is_up(pipeline)
        on(pipeline, first.id)
        assert len(pipeline.rhythm.requests()) == told + 2, "one read, and the probe that owes nothing to its event"
    pipeline.rhythm.clear_faults()
    time_is_up(pipeline)
    assert on(pipeline, first.id) == SYNCED
    assert "reason" not in state(pipeline)


def test_a_connection_that_is_refused_or_cut_is_an_outage(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("reset", kind="get", times=2)
    (event,) = pipeline.run(*seed(pipeline))
    assert seen(pipeline, event.id) == (EventState.READY, AWAY, 0)
    time_is_up(pipeline)
    assert on(pipeline, event.id) == SYNCED


def test_a_read_that_is_refused_is_an_answer_and_opens_the_gate(pipeline: Pipeline) -> None:
    (event,) = pipeline.run(certiverse(registration=None))
    gates(pipeline).close(AWAY, None)
    time_is_up(pipeline)
    pipeline.rhythm.fault("status", kind="student_exam", status=400)
    on(pipeline, event.id)
    assert "reason" not in state(pipeline)


def test_a_probe_may_take_several_calls(pipeline: Pipeline) -> None:
    pipeline.rhythm.options(page_size=1)
    pipeline.rhythm.fault("status", status=503, times=2)
    events = pipeline.run(*seed(pipeline, 3))
    time_is_up(pipeline)
    assert on(pipeline, events[0].id) == SYNCED
    assert {seen(pipeline, event.id) for event in events} == {SYNCED}


def test_a_write_that_always_fails_spends_its_own_attempts_and_leaves_the_gate_open(pipeline: Pipeline) -> None:
    bodies = seed(pipeline, 2)
    pipeline.rhythm.fault("status", kind="patch", ids=["reg-1"], times=None, status=500)
    (failing,) = pipeline.run(bodies[0])
    assert seen(pipeline, failing.id) == (EventState.READY, AWAY, 1)
    assert on(pipeline, failing.id) == (EventState.READY, AWAY, 2)
    assert state(pipeline) == {}
    (other,) = pipeline.run(bodies[1])
    assert seen(pipeline, other.id) == SYNCED
    three_days_ms = 72 * 3600 * 1000
    pipeline.services.redis.hincrby(f"er:{TENANT}:event:{failing.id}", "first_attempt_at", -three_days_ms)
    assert on(pipeline, failing.id)[:2] == (EventState.DEAD, Reason.RETRIES_EXPIRED)


def test_only_one_probes_at_a_time_and_one_that_died_is_replaced(pipeline: Pipeline) -> None:
    probe, other = gates(pipeline), gates(pipeline)
    probe.close(AWAY, None)
    time_is_up(pipeline)
    probe.take()
    with pytest.raises(GateClosed) as caught:
        other.take()
    assert caught.value.reason is AWAY
    pipeline.services.redis.hset(GATE, "probe_until", 0)
    other.take()
    assert other.probing
    other.close(AWAY, None)
    time_is_up(pipeline)
    probe.take()
    with pytest.raises(GateClosed):
        other.take()
    probe.open()
    gates(pipeline).take()


def test_of_two_answers_the_one_that_asks_for_more_counts(pipeline: Pipeline) -> None:
    gate = gates(pipeline)
    gate.close(THROTTLED, timedelta(seconds=30))
    gate.close(AWAY, None)
    gate.close(THROTTLED, timedelta(seconds=5))
    assert 29 < closed_for(pipeline) < 30.1
    assert state(pipeline)["failures"] == "1", "calls that fail together count once"


def test_a_probe_s_success_does_not_open_what_a_later_answer_closed(pipeline: Pipeline) -> None:
    probe, slow = gates(pipeline), gates(pipeline)
    probe.close(AWAY, None)
    time_is_up(pipeline)
    probe.take()
    slow.close(THROTTLED, timedelta(seconds=30))  # a call from before the outage is answered at last
    probe.open()
    assert 29 < closed_for(pipeline) < 30.1
    with pytest.raises(GateClosed):
        gates(pipeline).take()


def test_no_tenant_s_gate_is_another_s(pipeline: Pipeline) -> None:
    gates(pipeline).close(AWAY, None)
    Gate(pipeline.ledger.scripts, "other", None).take()


# Pace


def test_a_paced_tenant_is_called_at_its_pace_and_no_slower(paced: Callable[[float], Pipeline]) -> None:
    pipeline, count = paced(20), 24
    for body in seed(pipeline, count, named=False):
        pipeline.deliver(body)
    pipeline.rhythm.fault("status", kind="search", status=500)  # so that each is looked up alone
    pipeline.process()
    pipeline.sync()
    assert queries.counts(pipeline.services.redis, TENANT)["synced"] == count
    at = sorted(call["at"] for call in pipeline.rhythm.requests())
    assert len(at) == count + 3, "a search, a probe, a look-up each, one batch"
    assert at[-1] - at[0] == pytest.approx((count + 2) / 20, abs=0.3)
    assert min(later - earlier for earlier, later in zip(at[:-4], at[4:], strict=True)) > 4 / 20 - 0.05


def test_two_tasks_share_one_pace(paced: Callable[[float], Pipeline]) -> None:
    pipeline = paced(20)
    gate, other = gates(pipeline), gates(pipeline)
    began = queries.redis_now(pipeline.services.redis)
    with ThreadPoolExecutor(2) as tasks:
        list(tasks.map(lambda one: [one.take() for _ in range(6)], [gate, other]))
    took = (queries.redis_now(pipeline.services.redis) - began).total_seconds()
    assert 11 / 20 <= took <= 11 / 20 + 0.3


def test_whose_turn_is_too_far_off_goes_back_without_an_attempt_and_the_gate_stays_open(
    paced: Callable[[float], Pipeline],
) -> None:
    pipeline = paced(10)
    payloads = seed(pipeline)
    pipeline.services.redis.hset(GATE, "next", (now(pipeline) + 30) * 1000)  # others have taken the turns before
    (event,) = pipeline.run(*payloads)
    assert seen(pipeline, event.id) == (EventState.READY, THROTTLED, 0)
    assert "closed_until" not in state(pipeline)
    assert pipeline.rhythm.requests() == []
    pipeline.services.redis.hset(GATE, "next", 0)
    on(pipeline, event.id)
    assert [call["kind"] for call in pipeline.rhythm.requests()] == ["get", "patch"]


def test_who_waits_for_a_turn_while_the_gate_is_closed_does_not_call(paced: Callable[[float], Pipeline]) -> None:
    pipeline = paced(2)
    gates(pipeline).take()
    with ThreadPoolExecutor(1) as task:
        waiting = task.submit(gates(pipeline).take)
        wait_until(lambda: float(state(pipeline)["next"]) / 1000 - now(pipeline) > 0.55, 2, "the second turn")
        gates(pipeline).close(THROTTLED, timedelta(seconds=30))
        with pytest.raises(GateClosed):
            waiting.result()


def test_turns_that_were_given_out_before_the_gate_closed_are_void(paced: Callable[[float], Pipeline]) -> None:
    pipeline = paced(0.2)
    gates(pipeline).take()
    gates(pipeline).close(THROTTLED, timedelta(seconds=1))
    assert float(state(pipeline)["next"]) <= int(state(pipeline)["closed_until"])


def now(pipeline: Pipeline) -> float:
    return queries.redis_now(pipeline.services.redis).timestamp()


@pytest.mark.parametrize(("burst", "told"), [(2, "seconds"), (1, "none")])
def test_a_limit_of_rhythm_s_that_nobody_configured_is_learned_and_everything_gets_through(
    pipeline: Pipeline, burst: int, told: str
) -> None:
    pipeline.rhythm.options(rate_limit={"calls_per_second": 4, "burst": burst, "retry_after": told})
    bodies = seed(pipeline, 4, named=False)
    ids = [pipeline.deliver(body) for body in bodies]
    pipeline.process()
    wait_until(lambda: [on(pipeline, id) for id in ids] == [SYNCED] * 4, 20, "all of them")
    calls = pipeline.rhythm.requests()
    refusals = [call for call in calls if call["retry_after"]]
    assert refusals or told == "none"
    assert sum(call["status"] == 429 for call in calls) <= 3
    assert 0.2 <= float(state(pipeline)["learned"]) < 20
    for refusal in refusals:
        ends = refusal["ended_at"] + float(refusal["retry_after"])
        early = [call for call in calls if refusal["ended_at"] < call["at"] < ends]
        assert early == [], json.dumps(early)


def test_refusals_of_calls_that_were_under_way_together_are_one_lesson(pipeline: Pipeline) -> None:
    gate = gates(pipeline)
    gate.close(THROTTLED, None)
    taught = state(pipeline)["learned"]
    gate.close(THROTTLED, None)
    assert state(pipeline)["learned"] == taught


def test_what_a_429_taught_is_forgotten_within_a_minute(pipeline: Pipeline) -> None:
    gate = gates(pipeline)
    gate.close(THROTTLED, None)
    time_is_up(pipeline)
    gate.take()
    gate.open()
    assert float(state(pipeline)["interval"]) == pytest.approx(50, rel=0.01)
    pipeline.services.redis.hincrbyfloat(GATE, "learned_at", -60_000)
    gate.take()
    assert "interval" not in state(pipeline)


def test_a_turn_from_before_the_gate_was_closed_is_void_when_it_is_open_again(
    paced: Callable[[float], Pipeline],
) -> None:
    pipeline = paced(2)
    gates(pipeline).take()
    with ThreadPoolExecutor(1) as task:
        waiting = task.submit(gates(pipeline).take)
        wait_until(lambda: float(state(pipeline)["next"]) / 1000 - now(pipeline) > 0.55, 2, "the second turn")
        other = gates(pipeline)
        other.close(THROTTLED, timedelta(milliseconds=50))
        wait_until(lambda: closed_for(pipeline) < 0, 2, "the pause's end")
        other.take()
        other.open()
        began = now(pipeline)
        waiting.result()
        assert now(pipeline) - began > 0.4, "a turn of its own, after the other's"


def test_a_paced_tenant_has_as_many_slots_as_its_pace_needs(paced: Callable[[float], Pipeline]) -> None:
    pipeline = paced(5)
    for body in seed(pipeline, 8):
        pipeline.deliver(body)
    pipeline.process()

    def slots(busy: float) -> int:
        pipeline.due_now()
        pipeline.services.redis.hset(GATE, mapping={"interval": 200, "busy": busy})
        claims = [pipeline.ledger.claim(TENANT, f"t{busy}-{n}", 1, 2) for n in range(5)]
        return sum(bool(claim.works) for claim in claims)

    assert [slots(busy) for busy in (20, 250, 520, 5000)] == [1, 2, 3, 3]


def test_since_is_when_it_began_to_be_closed_for_this_reason(pipeline: Pipeline) -> None:
    """An outage that becomes a refusal: our credentials have been refused since then, not since the outage."""
    gate, client = pipeline.services.gate(TENANT), pipeline.services.redis
    gate.close(AWAY, None)
    client.hset(GATE, "since", 1000)
    gate.close(AWAY, None)
    assert queries.gate(client, TENANT)["since"] == "1000"
    gate.close(REFUSED, None)
    assert int(queries.gate(client, TENANT)["since"]) > 1000
