"""`tasks.receive`: results from a Celery client that has none of our code, through a real worker."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import celery
import pytest

from schemas.event import EventState
from tests.acceptance.stack import Stack, stack_at
from tests.acceptance.watching import Collector, Watch, collecting
from tests.events import certiverse
from tests.running import ROOT, wait_until
from tests.senders import NOWHERE, SECRETS, TABLES
from worker.ledger import misdirected, queries, strays
from worker.ledger.sealed import Sealer
from worker.queues import TAKEN

QUEUE = "examrelay.receive"
#: `MARKED` as it looks in base64 wherever it begins.
IN_BASE64 = ("TUFSS0VE", "1BUktF", "NQVJLR")
#: What a client of somebody's own has: celery and the broker's URL.
CLIENT = """
import json, sys
import celery
app = celery.Celery(broker=sys.argv[1])
def send(*args, **kwargs):
    options = kwargs.pop("options", {})
    app.send_task("tasks.receive", args=args, kwargs=kwargs, **{"queue": "examrelay.receive", **options})
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Where Sentry's data goes."""
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    """A receiver, and a worker that has nothing but the ledger."""
    folder = tmp_path_factory.mktemp("receive")
    with stack_at(folder, NOWHERE, {"more": TABLES}, SENTRY_DSN=collector.dsn, **SECRETS) as made:
        made.start("web")
        made.start_ready("worker")
        yield made


@pytest.fixture
def stack(running: Stack) -> Stack:
    """The same with nothing recorded and nothing in its log."""
    make_room(running)
    drained(running)
    running.client.delete("ballast", *running.client.keys("er:*"))
    os.truncate(running.log("worker"), 0)
    return running


def send(stack: Stack, script: str) -> None:
    """Run a client in a process of its own, outside of this folder."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT + script, stack.valkey.url],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        env={name: value for name, value in os.environ.items() if name in ("PATH", "HOME")},
    )
    assert done.returncode == 0, done.stderr


def drained(stack: Stack) -> None:
    """Wait until no message waits or is under way. Between the two a hint is nowhere for a moment: that must last."""
    left, free = ("unacked", "examrelay", QUEUE, TAKEN), [time.monotonic()]

    def look() -> bool:
        if stack.client.exists(*left):
            free[0] = time.monotonic()
        return time.monotonic() - free[0] > 0.2

    wait_until(look, 30, "empty queues")


def events_of(stack: Stack) -> list[str]:
    return list(queries.ids(stack.client, "acme"))


def whys(stack: Stack) -> list[str]:
    return sorted(stray.why for stray in strays.page(stack.client)[0])


def test_text_and_bytes_by_position_and_by_name_are_the_same_event_as_at_the_receiver(stack: Stack) -> None:
    body = certiverse()
    send(
        stack,
        f"""
body = {body.decode()!r}
send("acme", "certiverse", body)
send("acme", "certiverse", body.encode())
send(tenant="acme", source="certiverse", body=body, path=None)
send("acme", "certiverse", body=body.encode(), options={{"expires": -5, "countdown": 300, "time_limit": 0.001}})
send("acme", "certiverse", body, options={{"link": celery.signature("tasks.nothing"), "ignore_result": False}})
send("acme", "certiverse", b"\\xff\\xfe")
send("acme", "drillster", "{{}}", "TEST_COMPLETED/a%2Fb")
""",
    )
    drained(stack)
    assert len(events_of(stack)) == 3
    assert whys(stack) == []
    answer = stack.post(body).json()
    assert answer["duplicate"] is True
    assert stack.event(answer["id"]).receipts == 6
    wait_until(lambda: stack.counts().get(EventState.DEAD) == 2, 20, "burials: what is no JSON, and what is no test")
    assert "Traceback" not in stack.log("worker").read_text()


def test_what_a_client_sent_without_a_queue_is_recorded_once_an_operator_has_moved_it(stack: Stack) -> None:
    send(stack, 'app.send_task("tasks.receive", args=["acme", "certiverse", "{}"])')
    assert (stack.client.llen("celery"), events_of(stack)) == (1, [])
    assert misdirected.take(stack.client, QUEUE) == 1
    wait_until(lambda: events_of(stack), 20, "the event")
    drained(stack)
    assert (len(events_of(stack)), whys(stack), stack.client.llen("celery")) == (1, [], 0)


def test_a_raw_kombu_producer_will_do(stack: Stack) -> None:
    send(
        stack,
        """
import kombu, uuid
with kombu.Connection(sys.argv[1]) as connection:
    id = str(uuid.uuid4())
    kombu.Producer(connection, serializer="json").publish(
        [["acme", "certiverse", "{}"], {}, {}], exchange="", routing_key="examrelay.receive",
        headers={"task": "tasks.receive", "id": id}, correlation_id=id,
    )
""",
    )
    wait_until(lambda: events_of(stack), 20, "the event")
    drained(stack)


NOT_ON_THE_BOOKS = """
send("nobody", "certiverse", "MARKED-1")
send("acme", "MARKED-2", "{}")
send("acme", "certiverse")
send("acme", "certiverse", {"MARKED": 3})
send("acme", "certiverse", None)
send("acme", "certiverse", "{}", "p", "MARKED-4")
send("acme", "certiverse", "{}", MARKED=5)
send("acme", tenant="MARKED-6", source="certiverse", body="{}")
send(self="MARKED-7", args=["acme", "certiverse", "{}"])
send()
send("acme", "certiverse", "MARKED-8 \\ud800")
send("acme", "certiverse", "{}", 9)
app.send_task("tasks.MARKED", args=["acme", "certiverse", "MARKED-10"], queue="examrelay.receive")
send("acme", "certiverse", "MARKED-11", options={"serializer": "pickle"})
for body in (b"5", b'"MARKED-12"', b"[]", b"[1, 2, 3]", b'{"args": ["MARKED-13"]}', b"not JSON: MARKED-14", b"\\xff"):
    import kombu, uuid
    with kombu.Connection(sys.argv[1]) as connection:
        kombu.Producer(connection).publish(
            body, exchange="", routing_key="examrelay.receive", content_type="application/json", retry=False,
            content_encoding="utf-8", headers={"task": "tasks.receive", "id": str(uuid.uuid4())},
        )
"""


def test_what_can_be_put_on_nobodys_books_is_kept_sealed_and_listed(stack: Stack) -> None:
    send(stack, NOT_ON_THE_BOOKS)
    drained(stack)
    arguments, unreadable = "the arguments are not (tenant, source, body, path=None)", "its body cannot be read"
    found = whys(stack)
    assert len(found) == 21, found
    assert events_of(stack) == []
    assert found.count(arguments) == 6
    assert sum(why.startswith((unreadable, "its body is not")) for why in found) == 8
    assert sum("neither bytes nor text" in why for why in found) == 2
    assert not any("MARKED" in why for why in found)
    contents = [strays.content(stack.client, Sealer(), one.id) or b"" for one in strays.page(stack.client)[0]]
    kept = b" ".join(contents)
    assert all(b"MARKED-%d" % number in kept for number in (1, 2, 4, 6, 7, 8, 10, 11, 12, 13, 14)), contents
    assert stack.running["worker"].poll() is None

    listed = json.loads(_dead_list(stack, "--json"))
    assert sorted(one["why"] for one in listed["strays"]) == found
    assert set(listed["strays"][0]) == {"id", "at", "why", "task", "bytes"}
    table = _dead_list(stack)
    assert table.count("stray_") == 21
    assert "MARKED" not in table


def _dead_list(stack: Stack, *options: str) -> str:
    command = [sys.executable, "-m", "worker", "dead", "list", *options]
    return subprocess.run(command, cwd=ROOT, env=stack.environ, check=True, capture_output=True, text=True).stdout


def test_the_same_stray_again_is_kept_once(stack: Stack) -> None:
    send(stack, 'send("nobody", "certiverse", "{}"); send("nobody", "certiverse", "{}")')
    drained(stack)
    assert len(whys(stack)) == 1


def test_neither_events_nor_inspect_nor_logs_nor_sentry_show_what_it_brings_also_when_it_fails(
    stack: Stack, collector: Collector
) -> None:
    with Watch(stack) as watch:
        send(stack, NOT_ON_THE_BOOKS + 'send("acme", "certiverse", "MARKED")\n')
        drained(stack)
        make_full(stack)
        bodies = count(1)
        wait_until(lambda: put_back(stack) or send(stack, f'send("acme", "certiverse", body=b"MARKED-{next(bodies)}")'))
        running = wait_until(lambda: [one for answer in watch.answers for one in _tasks(answer)], 20, "one under way")
        (child, *_) = {one["worker_pid"] for one in running}
        os.kill(child, signal.SIGKILL)
        before = put_back(stack)
        wait_until(lambda: put_back(stack) > before, 20, "one put back again")
        make_room(stack)
        sent = next(bodies)  # one for each, and one before
        wait_until(lambda: len(events_of(stack)) == sent, 20, "every one of them")
        drained(stack)
    assert {one["args"] for one in running} == {one["kwargs"] for one in running} == {"(hidden)"}
    assert watch.kinds() >= {"task-received", "task-started", "task-succeeded", "task-failed", "task-rejected"}
    failed = [event["exception"] for event in watch.events if event.get("type") == "task-failed"]
    assert any("there is no such tenant; there are: acme, beta" in told for told in failed), failed
    report = "from worker import sentry, telemetry; from worker.settings import load_settings as l; import sentry_sdk\n"
    report += "telemetry.set_up(l(), 'test'); sentry.report_bug(ValueError('MARKED')); sentry_sdk.flush()"
    subprocess.run([sys.executable, "-c", report], cwd=ROOT, env=stack.environ, check=True, capture_output=True)
    assert any(b"ValueError" in one for one in collector.received)  # it can be heard here
    for place in (watch.events, watch.answers, collector.received, stack.log("worker").read_text()):
        told = str(place)
        assert "MARKED" not in told
        assert not [hidden for hidden in IN_BASE64 if hidden in told]


def _tasks(answer: Any) -> list[dict[str, Any]]:
    """The tasks in an answer to `inspect active`."""
    lists = [one for one in (answer or {}).values() if isinstance(one, list)]
    return [task for one in lists for task in one if task.get("name") == "tasks.receive" and task.get("worker_pid")]


def put_back(stack: Stack) -> int:
    """How often a message went back to the queue."""
    return stack.log("worker").read_text().count("receive.put_back")


def drained_or_put_back(stack: Stack) -> None:
    wait_until(lambda: put_back(stack) or not stack.client.exists("unacked", QUEUE), 20, "one or the other")


def make_full(stack: Stack) -> None:
    """Beyond what the receiver takes, but with room for Celery."""
    stack.client.setrange("ballast", 32 * 2**20, "x")
    stack.client.config_set("maxmemory", int(stack.client.info("memory")["used_memory"] / 0.9))


def make_room(stack: Stack) -> None:
    stack.client.config_set("maxmemory", 0)


def test_what_cannot_be_recorded_now_goes_back_without_a_hot_loop_and_is_recorded_later(stack: Stack) -> None:
    make_full(stack)
    bodies = count(1)
    wait_until(lambda: put_back(stack) or send(stack, f'send("acme", "certiverse", "{next(bodies)}")'))
    before, tries, began = len(events_of(stack)), put_back(stack), time.monotonic()
    wait_until(lambda: put_back(stack) >= tries + 3, 30, "three more tries")
    assert time.monotonic() - began > 1.5  # each takes at least a second, and one was under way
    assert len(events_of(stack)) == before
    make_room(stack)
    sent = next(bodies) - 1
    wait_until(lambda: len(events_of(stack)) == sent > before, 20, "every one of them")
    assert whys(stack) == []


def test_a_result_cannot_be_revoked_by_its_messages_id(stack: Stack) -> None:
    make_full(stack)
    app = celery.Celery(broker=stack.valkey.url, set_as_current=False)
    with app.connection_for_write() as connection:
        ids = []
        while not put_back(stack):
            arguments = ["acme", "certiverse", str(len(ids))]
            ids.append(app.send_task("tasks.receive", arguments, queue=QUEUE, connection=connection).id)
            drained_or_put_back(stack)
        app.control.revoke(ids, terminate=True, connection=connection, reply=True, timeout=2)
        app.control.revoke(ids[-1], terminate=True, connection=connection, reply=True, timeout=2)
    make_room(stack)
    wait_until(lambda: len(events_of(stack)) == len(ids), 20, "every one of them")


def test_a_body_over_the_limit_and_keys_in_it_are_kept_as_the_receiver_keeps_them(stack: Stack) -> None:
    send(
        stack,
        f"""
send("acme", "certiverse", "x" * (2 * 2**20 + 1))
keys = {{"apiKey": "{SECRETS["ACME_PROV_KEY"]}", "secretKey": "{SECRETS["ACME_PROV_SECRET"]}"}}
send("acme", "prov", json.dumps({{"candidateId": "c-1", **keys}}))
""",
    )
    drained(stack)
    wait_until(lambda: stack.counts().get("dead:body_too_large") == 1, 20, "the burial")
    kept = b"".join(stack.client.dump(key) or b"" for key in stack.client.keys("er:*"))
    assert b"MARKED" not in kept
