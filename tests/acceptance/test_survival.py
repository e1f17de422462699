"""Real processes that die, hang and come back: nothing is lost, nothing is written twice, work goes on by itself."""

import signal
import time

from schemas.event import EventState
from tests.acceptance.stack import Stack
from tests.events import certiverse, registration
from tests.pipeline import ORG
from tests.running import wait_until
from worker.celery import make_app
from worker.queues import PROCESS, SYNC
from worker.settings import Settings


def seed(stack: Stack, count: int, begin: int = 0) -> tuple[list[bytes], list[str]]:
    """Registrations for as many payloads. Returns the payloads and the registrations' ids."""
    ids = [f"reg-{number}" for number in range(begin, begin + count)]
    stack.rhythm.seed(ORG, [registration(id, student_id=f"stu-{id}") for id in ids])
    return [certiverse(f"dlv-{id}", id, student=f"stu-{id}") for id in ids], ids


def under_way(stack: Stack) -> bool:
    """Whether a write has begun that Rhythm has not answered."""
    last = stack.rhythm.counts()["calls"] - 10
    return any(one["kind"] in ("batch", "patch") and one.get("ended_at") is None for one in stack.rhythm.requests(last))


def test_a_result_goes_from_the_receiver_to_rhythm(stack: Stack) -> None:
    (body,), ids = seed(stack, 1)
    answer = stack.post(body)
    assert (answer.status_code, answer.json()["state"], answer.json()["duplicate"]) == (202, "received", False)
    stack.synced(1)
    stack.written_once(ids)
    again = stack.post(body)
    assert again.json() == {"id": answer.json()["id"], "state": "synced", "duplicate": True}


def test_a_worker_killed_in_the_middle_of_a_batch_loses_and_doubles_nothing(stack: Stack) -> None:
    bodies, ids = seed(stack, 60)
    stack.rhythm.options(latency_ms=400)
    stack.deliver(bodies)
    wait_until(lambda: any(one["kind"] == "batch" for one in stack.rhythm.requests()), 20, "a batch under way")
    stack.end("worker", signal.SIGKILL)
    stack.rhythm.options(latency_ms=0)
    stack.start("worker")
    stack.synced(60)
    stack.written_once(ids)
    assert stack.books().differences == ()


def test_a_restart_of_redis_under_busy_workers_stops_nothing(stack: Stack) -> None:
    """The worker must hold a message when Redis goes: Celery's own consumer ends then, and only then."""
    bodies, ids = seed(stack, 120)
    stack.rhythm.options(latency_ms=1500)
    worker = stack.running["worker"].pid
    for begin, how in ((0, signal.SIGKILL), (60, signal.SIGTERM)):
        stack.deliver(bodies[begin : begin + 60])
        wait_until(lambda: under_way(stack), 20, "a write under way")
        stack.valkey.stop(how)
        stack.valkey.start()
        wait_until(lambda: not under_way(stack), 10, "the end of the write")
        stack.synced(begin + 60, 40)
    stack.written_once(ids)
    assert stack.running["worker"].poll() is None, stack.log("worker").read_text()
    assert stack.running["worker"].pid == worker


def test_redis_hanging_for_20_seconds_costs_only_time(stack: Stack) -> None:
    bodies, ids = seed(stack, 200)
    stack.rhythm.options(latency_ms=300)
    stack.deliver(bodies[:150])
    wait_until(lambda: stack.counts().get("synced", 0) > 0, 20, "the first batch")
    stack.valkey.pause()
    answer = stack.post(bodies[-1], timeout=5)
    assert answer.status_code == 503
    assert answer.elapsed.total_seconds() < 1
    assert int(answer.headers["Retry-After"]) > 0
    resumes_at = time.monotonic() + 20
    wait_until(lambda: time.monotonic() > resumes_at, 30, "the end of twenty seconds")
    stack.valkey.resume()
    wait_until(lambda: stack.post(bodies[-1]).status_code == 202, 20, "the receiver takes it again")
    stack.deliver(bodies[150:])
    stack.synced(200, 120)
    stack.written_once(ids)
    assert stack.books().differences == ()


def test_garbage_on_the_queue_is_parked_and_work_goes_on(stack: Stack) -> None:
    (body, later), ids = seed(stack, 2)
    for entry in (b"\x00\xff not json", b"[1, 2]", b'{"body": "e30=", "headers": {}, "properties": {}}', b'"text"'):
        stack.client.lpush("examrelay", entry)
    stack.deliver([body])
    stack.synced(1)
    stack.client.lpush("examrelay", b'{"headers": {"id": "x"}}')
    stack.deliver([later])
    stack.synced(2)
    stack.written_once(ids)
    assert stack.client.llen("er:malformed") == 5
    assert stack.running["worker"].poll() is None


def test_a_lost_hint_is_repaired_within_ten_seconds_and_a_doubled_one_finds_nothing(stack: Stack) -> None:
    bodies, ids = seed(stack, 2)
    stack.end("worker", signal.SIGTERM)
    (lost, doubled) = stack.deliver(bodies)
    stack.client.delete("examrelay")
    stack.start_ready("worker")
    stack.synced(2, 10 + 5)
    assert stack.event(lost).state is EventState.SYNCED
    app = make_app(Settings(redis_url=stack.valkey.url))
    before = stack.rhythm.counts()
    for _ in range(3):
        app.send_task(PROCESS, args=["acme"], queue="examrelay")
        app.send_task(SYNC, args=["acme"], queue="examrelay")
    wait_until(lambda: stack.client.llen("examrelay") == 0 and stack.client.hlen("unacked") == 0, 10, "an empty queue")
    assert stack.rhythm.counts() == before
    stack.written_once(ids)
    assert [entry.move for entry in stack.event(doubled).history] == ["record", "prepare", "intend", "settle"]
