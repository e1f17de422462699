"""Every process under its own account, over TLS with a client certificate: its work is done, and no other allowed."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry
from typer.testing import CliRunner

from sandbox.control import Sandbox
from schemas.event import EventState
from tests.acceptance.stack import Stack, stack_at
from tests.accounts import USERS, password, url_over_tls, valkey_with_accounts
from tests.commands import command
from tests.console_peer import USERS as PEOPLE
from tests.console_peer import Browser
from tests.events import certiverse, registration
from tests.pipeline import ORG
from tests.running import ROOT, free_port, wait_until
from tests.tenants import ENVIRON
from tests.tls import Authority, tls_front
from worker.cli.app import app
from worker.ledger import queries
from worker.settings import load_settings

FLOWER = ("operator", "s3cret")
ACCOUNT = {"web": "receiver", "worker": "worker", "sweeper": "worker", "beat": "worker", "console": "console"}
ACCOUNT |= {"flower": "flower"}


class Accounts:
    """A stack whose processes each have an account."""

    def __init__(self, stack: Stack, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.stack, self.urls = stack, urls
        self._monkeypatch = monkeypatch

    def direct(self, user: str) -> "redis.Redis":
        """What somebody can do who has learned a user's password."""
        return redis.Redis(port=self.stack.valkey.port, username=user, password=password(user))

    def denied(self) -> list[tuple[Any, ...]]:
        """What was ever refused: who, what, and where."""
        return [(one["username"], one["reason"], one["object"], one["context"]) for one in self.stack.client.acl_log()]

    def command(self, *words: str) -> str:
        """A command of the operator's. Gives what it says on standard output."""
        self._monkeypatch.setenv("REDIS_URL", self.urls["operator"])
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (words, done.output, done.exception, self.denied())
        return done.stdout


@pytest.fixture(scope="module")
def accounts(running_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    running_sandbox.reset()
    folder = tmp_path_factory.mktemp("accounts")
    authority, monkeypatch = Authority(folder, "ours"), pytest.MonkeyPatch()
    ports = {"FLOWER_PORT": str(free_port()), "EXAMRELAY_CONSOLE_PORT": str(free_port())}
    more = ports | {"FLOWER_BASIC_AUTH": ":".join(FLOWER), "EXAMRELAY_SWEEP_SECONDS": "1"}
    valkey = valkey_with_accounts(folder)
    with (
        stack_at(folder, running_sandbox, {"more": PEOPLE.replace('"beta"', '"acme"')}, valkey, **more) as stack,
        tls_front(valkey.port, authority.sign("server", "127.0.0.1"), clients=authority.file) as front,
    ):
        certificate = authority.sign("client")
        urls = {user: url_over_tls(user, front, authority, certificate) for user in USERS}
        stack.own = {name: {"REDIS_URL": urls[user]} for name, user in ACCOUNT.items()}
        stack.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"
        for name in ("EXAMRELAY_CONFIG", "EXAMRELAY_DATA", *ENVIRON):
            monkeypatch.setenv(name, stack.environ[name])
        stack.start(*ACCOUNT)
        yield Accounts(stack, urls, monkeypatch)
        assert b"hunter2" in front.heard
        for name in stack.running:
            assert "hunter2" not in stack.log(name).read_text()
    monkeypatch.undo()


def test_all_work_is_done_and_nothing_is_refused(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = accounts.stack
    stack.rhythm.seed(ORG, [registration(f"reg-{number}", student_id=f"stu-{number}") for number in range(1, 9)])
    deliver_in_every_way(accounts, monkeypatch)
    stack.synced(4)
    wait_until(lambda: stack.counts().get("dead") == 2 and stack.counts().get("held") == 2, 20, "who waits")
    read_at_the_receiver(accounts)
    act_by_command(accounts)
    act_in_the_console(accounts)
    look_at_flower(accounts)
    assert json.loads(accounts.command("audit", "--json"))["differences"] == []
    assert accounts.denied() == []


def result(number: int, exam: str = "CERT-1") -> bytes:
    return certiverse(f"dlv-{number}", f"reg-{number}", student=f"stu-{number}", exam=exam)


#: As its caller must: what was not recorded is sent again.
ENQUEUE = """
from worker import enqueue
from worker.errors import LedgerUnavailable
sent = None
while sent is None:
    try:
        sent = enqueue("acme", "certiverse", {!r})
    except LedgerUnavailable:
        pass
"""


def delivered(stack: Stack, body: bytes) -> str:
    """As a platform does: after a 503 it sends again. Returns the event's id."""
    answer = wait_until(lambda: found if (found := stack.post(body)).status_code != 503 else None, 20, "an answer")
    assert answer.status_code == 202, answer.text
    id: str = answer.json()["id"]
    return id


def deliver_in_every_way(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP, by `enqueue` and by Celery: four that are written, two dead, two held, and a stray."""
    stack = accounts.stack
    bodies = [result(1), result(2), result(1), b"{ not json", b"[ nor this", result(5, "NEW-1"), result(6, "NEW-1")]
    for body in bodies:
        delivered(stack, body)
    code = ENQUEUE.format(result(3))
    environ = stack.environ | {"REDIS_URL": accounts.urls["receiver"]}
    subprocess.run([sys.executable, "-c", code], env=environ, cwd=ROOT, check=True, timeout=60)
    monkeypatch.setenv("REDIS_URL", accounts.urls["sender"])
    address = load_settings().redis
    client = Celery(broker=address.url, broker_use_ssl=address.tls, set_as_current=False)
    for tenant, body in (("acme", result(4).decode()), ("nobody", "{}")):
        client.send_task("tasks.receive", args=[tenant, "certiverse", body], queue="examrelay.receive")
    client.close()


def read_at_the_receiver(accounts: Accounts) -> None:
    stack = accounts.stack
    assert requests.post(f"{stack.url}/v1/acme/certiverse", b"{}", timeout=5).status_code == 401  # and it is noted
    answer = wait_until(lambda: requests.get(f"{stack.url}/readyz", timeout=5), 10, "an answer")
    assert answer.json()["ready"], answer.text
    metrics = requests.get(f"{stack.url}/metrics", timeout=5).text
    assert 'examrelay_events{state="synced",tenant="acme"} 4.0' in metrics
    id = delivered(stack, result(1))
    reader = {"Authorization": f"Bearer {ENVIRON['ACME_READ']}"}
    assert requests.get(f"{stack.url}/v1/acme/events/{id}", headers=reader, timeout=5).json()["state"] == "synced"


def act_by_command(accounts: Accounts) -> None:
    status = json.loads(accounts.command("status", "--json"))
    assert (status["tenants"]["acme"]["held"], status["durability"]) == ({"unknown_exam": 2}, "fsync")
    accounts.command("check", "--live")
    dead = json.loads(accounts.command("dead", "list", "--json"))
    held = json.loads(accounts.command("held", "list", "--json"))
    ids = [event["id"] for event in json.loads(accounts.command("events", "list", "--json", "--state", "dead"))]
    assert (bool(dead), bool(held), len(ids)) == (True, True, 2)
    accounts.command("events", "show", ids[0], "--payload", "--words")
    accounts.command("replay", "--id", ids[0], "--yes")
    wait_until(lambda: accounts.stack.counts().get("dead") == 2, 20, "dead again")
    accounts.command("discard", "--id", ids[0], "--why", "no result", "--yes")
    accounts.command("plan", "--reason", "unknown_exam")
    accounts.command("trace", "--candidate", "stu-1")
    accounts.command("trace", "--registration", "reg-2")
    accounts.command("sweep")
    (stray,) = json.loads(accounts.command("strays", "list", "--json"))["strays"]
    accounts.command("strays", "show", stray["id"])
    words = ("strays", "receive", stray["id"], "--tenant", "acme", "--source", "certiverse")
    config = Path(accounts.stack.environ["EXAMRELAY_CONFIG"])
    assert command(config, *words, REDIS_URL=accounts.urls["operator"]).returncode == 0
    accounts.command("forget", "--candidate", "stu-2", "--yes")


def act_in_the_console(accounts: Accounts) -> None:
    stack = accounts.stack
    name, once = re.findall(r"name (\S+)\npassword (\S+)", accounts.command("console", "--sign-in"))[0]
    with Browser(f"http://127.0.0.1:{stack.environ['EXAMRELAY_CONSOLE_PORT']}") as browser:
        assert browser.sign_in(name, once).path == "/"
        assert browser.sign_in("ann", "wrong").status == 403
        assert browser.sign_in("ann").path == "/"
        for path in ("/", "/events", "/events?state=held", "/decide", "/strays", "/configuration"):
            assert browser.get(path).status == 200, path
        event = f"/events/acme/{one_held(stack)}"
        for what in ("payload", "plan"):
            page = browser.send(browser.get(event), f"{event}/look", {"what": what})
            assert page.status == 200, page.text
        asked = browser.send(browser.get(event), "/preview", {"move": "discard"}, why="no exam of ours")
        assert browser.send(asked, "/act").heading == "1 result was set aside"
        event = f"/events/acme/{one_held(stack)}"
        asked = browser.send(browser.get(event), "/preview", {"move": "replay"})
        assert browser.send(asked, "/act").heading == "1 result was sent on"
        assert browser.send(browser.get("/configuration"), "/configuration/checks").status == 200
    wait_until(lambda: not stack.counts().get("received"), 20, "it was processed again")


def one_held(stack: Stack) -> str:
    return next(queries.ids(stack.client, "acme", EventState.HELD))


def look_at_flower(accounts: Accounts) -> None:
    url = f"http://127.0.0.1:{accounts.stack.environ['FLOWER_PORT']}"

    def asked(path: str) -> requests.Response:
        return requests.get(url + path, auth=FLOWER, timeout=10)

    wait_until(lambda: "worker@" in asked("/api/workers?refresh=true").text, 20, "the workers")
    assert asked("/api/queues/length").json()["active_queues"]
    wait_until(lambda: "tasks.process" in asked("/api/tasks").text, 20, "the tasks")


FORBIDDEN = {
    "receiver": [
        "GET er:acme:payload:{id}",
        "DEL er:acme:event:{id}",
        "UNLINK er:acme:payload:{id}",
        "SORT_RO er:acme:events BY nosort GET er:acme:payload:*",
        "LRANGE examrelay.receive 0 -1",
        "LPUSH examrelay.receive x",
        "GET er:console.session.x",
        "EVAL {read} 0",
    ],
    "worker": ["GET er:console.session.x", "SCAN 0", "GETDEL er:acme:payload:{id}"],
    "console": ["LRANGE examrelay.receive 0 -1", "RPOP examrelay", "PUBLISH /0.celery.pidbox x", "SCAN 0"],
    "operator": ["PUBLISH /0.celery.pidbox x", "GET unacked"],
    "flower": ["GET er:acme:payload:{id}", "HGETALL er:acme:event:{id}", "BRPOP examrelay 1", "LPUSH examrelay x"],
    "sender": ["LPUSH examrelay x", "BRPOP examrelay.receive 1", "GET er:acme:payload:{id}", "EVAL {read} 0"],
}
NOBODY = [
    "CONFIG SET appendfsync no",
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "SHUTDOWN",
    "ACL LIST",
    "MONITOR",
]


@pytest.mark.parametrize("user", sorted(FORBIDDEN))
def test_nobody_may_do_what_is_not_their_work(accounts: Accounts, user: str) -> None:
    id = delivered(accounts.stack, result(8))
    read = f"return redis.call('GET', 'er:acme:payload:{id}')"
    with accounts.direct(user) as client:
        assert client.ping()
        for line in FORBIDDEN[user] + NOBODY:
            words = [word.format(id=id, read=read) for word in line.split()]
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*words)
        if user == "receiver":  # a script of its own may do no more
            with pytest.raises(redis.exceptions.ResponseError, match="permission"):
                client.evalsha(client.script_load(read), 0)


def test_without_a_name_nobody_comes_in(accounts: Accounts) -> None:
    for given in ({}, {"password": password("worker")}, {"username": "worker", "password": password("console")}):
        with (
            redis.Redis(port=accounts.stack.valkey.port, retry=Retry(NoBackoff(), 0), **given) as client,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            client.ping()
