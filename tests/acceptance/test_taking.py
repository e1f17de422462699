"""`examrelay.receive`: a result that is on the queue is never lost, whenever a worker or its connections end."""

import signal
import time
from collections.abc import Iterator
from itertools import count

import celery
import pytest

from tests.acceptance.stack import Stack, stack_at
from tests.running import wait_until
from tests.senders import NOWHERE, SECRETS, TABLES
from worker.ledger import queries
from worker.queues import RECEIVE_QUEUE, TAKEN

_NUMBERS = count(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A sweeper; the tests start and end the worker. Rhythm is nowhere: results are recorded, and wait."""
    folder = tmp_path_factory.mktemp("taking")
    with stack_at(folder, NOWHERE, {"more": TABLES}, EXAMRELAY_SWEEP_SECONDS="1", **SECRETS) as made:
        made.start("web")
        made.start("sweeper", "beat")
        yield made


@pytest.fixture
def stack(running: Stack) -> Stack:
    """The same with a worker that waits for messages, and with none under way."""
    running.client.config_set("maxmemory", 0)
    if "worker" not in running.running:
        running.start("worker")
    waits(running)
    return running


@pytest.fixture(scope="module")
def app(running: Stack) -> Iterator[celery.Celery]:
    """A client of somebody's own."""
    with celery.Celery(broker=running.valkey.url, set_as_current=False) as made:
        yield made


def send(app: celery.Celery, body: str | None = None) -> None:
    """A result that none was before, unless `body` says what."""
    app.send_task("tasks.receive", ["acme", "certiverse", body or f"result {next(_NUMBERS)}"], queue=RECEIVE_QUEUE)


def blocked(stack: Stack) -> bool:
    """Whether a worker waits in Redis for a result."""
    return any("b" in one["flags"] and one["cmd"] == "blmove" for one in stack.client.client_list())


def waits(stack: Stack) -> None:
    """Wait for a worker that consumes and has nothing to do."""
    wait_until(lambda: blocked(stack) and not stack.client.exists(RECEIVE_QUEUE, TAKEN, "unacked"), 60, "a free worker")


def recorded(stack: Stack) -> int:
    return len(list(queries.ids(stack.client, "acme")))


def all_recorded(stack: Stack, number: int) -> None:
    """Wait until there are so many events, and no message left."""
    wait_until(lambda: recorded(stack) >= number, 60, f"{number} events")
    wait_until(lambda: not stack.client.exists(RECEIVE_QUEUE, TAKEN, "unacked"), 60, "no message left")
    assert recorded(stack) == number


def stop_with_a_message_under_way(stack: Stack, app: celery.Celery) -> int:
    """Stop the worker; Redis sends it a message. Returns how many were sent: it must have waited for one."""
    for sent in range(1, 11):
        waits(stack)
        stack.end("worker", signal.SIGSTOP)
        send(app)
        if not stack.client.exists(RECEIVE_QUEUE):
            return sent
        stack.end("worker", signal.SIGCONT)
    raise AssertionError("the worker never waited")


def cut(stack: Stack) -> None:
    """Cut all connections of workers."""
    for one in stack.client.client_list():
        if one["name"] == "examrelay-celery":
            stack.client.client_kill_filter(_id=one["id"])


@pytest.mark.parametrize("how", ["the worker is killed", "its connections are cut"])
def test_a_message_that_redis_has_sent_to_a_worker_is_recorded_when(how: str, stack: Stack, app: celery.Celery) -> None:
    before = recorded(stack)
    sent = stop_with_a_message_under_way(stack, app)
    if how == "the worker is killed":
        stack.end("worker", signal.SIGKILL)
        wait_until(lambda: not stack.client.exists(TAKEN), 60, "the sweep")
        stack.start("worker")
    else:
        cut(stack)
        stack.end("worker", signal.SIGCONT)
    all_recorded(stack, before + sent)


def test_a_message_that_the_sweep_moved_back_is_delivered_once(stack: Stack, app: celery.Celery) -> None:
    before = recorded(stack)
    sent = stop_with_a_message_under_way(stack, app)
    wait_until(lambda: stack.client.llen(RECEIVE_QUEUE) == 1, 60, "the sweep")
    stack.end("worker", signal.SIGCONT)
    all_recorded(stack, before + sent)
    assert {stack.event(id).receipts for id in queries.ids(stack.client, "acme")} == {1}


def test_garbage_and_strays_are_parked_once(stack: Stack, app: celery.Celery) -> None:
    for entry in (b"\x00\xff not json", b"[1, 2]", b'{"body": "e30=", "headers": {}, "properties": {}}'):
        stack.client.lpush(RECEIVE_QUEUE, entry)
    app.send_task("tasks.nothing", queue=RECEIVE_QUEUE)
    app.send_task("tasks.receive", ["nobody", "certiverse", "{}"], queue=RECEIVE_QUEUE)
    before = recorded(stack)
    send(app)
    all_recorded(stack, before + 1)
    swept = queries.swept_at(stack.client)
    wait_until(lambda: queries.swept_at(stack.client) != swept, 60, "a sweep")
    waits(stack)
    assert (stack.client.llen("er:malformed"), stack.client.hlen("er:strays")) == (3, 2)
    assert stack.running["worker"].poll() is None


def test_at_maxmemory_results_wait_work_goes_on_and_nothing_is_lost(stack: Stack, app: celery.Celery) -> None:
    """The hint is noted, its task runs and buries an event: all with scripts that Redis allows there."""
    wait_until(lambda: stack.counts().get("received", 0) == 0, 60, "nothing to do")
    before, dead, connections = recorded(stack), stack.counts().get("dead", 0), lost_connections(stack)
    stack.end("worker", signal.SIGSTOP)
    wait_until(lambda: not blocked(stack), 60, "the end of what it waited for")
    for _ in range(3):
        send(app)
    stack.deliver([b"no JSON: its hint waits too"])
    stack.client.config_set("maxmemory", 1)
    stack.end("worker", signal.SIGCONT)
    wait_until(lambda: stack.counts().get("dead") == dead + 1, 60, "the burial")
    cut(stack)
    tries = refused(stack)
    wait_until(lambda: refused(stack) > tries, 60, "a try on a new connection")
    tries, began = refused(stack), time.monotonic()
    wait_until(lambda: refused(stack) >= tries + 2, 60, "two more tries")
    assert time.monotonic() - began > 1
    assert (stack.client.llen(RECEIVE_QUEUE), stack.client.exists(TAKEN)) == (3, 0)
    stack.client.config_set("maxmemory", 0)
    all_recorded(stack, before + 1 + 3)
    assert (stack.running["worker"].poll(), lost_connections(stack)) == (None, connections + 1), "no spin"


def test_a_worker_that_starts_while_redis_is_at_maxmemory_is_a_whole_one(stack: Stack, app: celery.Celery) -> None:
    before = recorded(stack)
    stack.end("worker", signal.SIGTERM)
    send(app)
    stack.client.config_set("maxmemory", 1)
    tries, connections = refused(stack), lost_connections(stack)
    stack.start("worker")
    wait_until(lambda: refused(stack) >= tries + 2, 60, "two tries to take a result")
    stack.client.config_set("maxmemory", 0)
    all_recorded(stack, before + 1)
    assert (stack.running["worker"].poll(), lost_connections(stack)) == (None, connections)


def test_a_worker_that_cannot_be_set_up_ends_and_says_why(stack: Stack) -> None:
    """Celery would log the error and go on, with kombu's own transport."""
    key = stack.client.get("er:index_key") or b""
    stack.end("worker", signal.SIGTERM)
    stack.client.delete("er:index_key")
    stack.client.config_set("maxmemory", 1)
    stack.start("worker")
    try:
        assert stack.running["worker"].wait(60) == 1
    finally:
        del stack.running["worker"]
        stack.client.config_set("maxmemory", 0)
        stack.client.set("er:index_key", key)
    assert "examrelay worker: could not be set up, start it again: OutOfMemoryError" in said(stack)


def test_a_restart_of_redis_stops_no_consumer(stack: Stack, app: celery.Celery) -> None:
    before, worker = recorded(stack), stack.running["worker"]
    for number, how in enumerate((signal.SIGKILL, signal.SIGTERM), 1):
        stack.valkey.stop(how)
        stack.valkey.start()
        send(app)
        all_recorded(stack, before + number)
    assert worker.poll() is None


def test_of_200_results_none_is_lost_while_workers_are_killed_and_connections_cut(
    stack: Stack, app: celery.Celery
) -> None:
    before = recorded(stack)
    for how in ("cut", "kill", "cut", "stop", "cut"):
        wait_until(lambda: blocked(stack), 60, "a worker that waits")
        for number in range(40):
            send(app)
            if number == 20 and how == "cut":
                cut(stack)
            elif number == 20:
                stack.end("worker", signal.SIGKILL if how == "kill" else signal.SIGTERM)
                stack.start("worker")
    # What dead workers had noted comes back after five minutes: let them be over.
    for tag in stack.client.zrange("unacked_index", 0, -1):
        stack.client.zadd("unacked_index", {tag: 0}, xx=True)
    all_recorded(stack, before + 200)


def refused(stack: Stack) -> int:
    """How often Redis has refused to give a result."""
    return int(stack.client.info("commandstats").get("cmdstat_blmove", {}).get("rejected_calls", 0))


def said(stack: Stack) -> str:
    """What the worker has said."""
    return stack.log("worker").read_text()


def lost_connections(stack: Stack) -> int:
    return said(stack).count("onnection to broker lost") + said(stack).count("Cannot connect to")
