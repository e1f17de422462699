"""Nothing personal leaves the ledger: marked strings through success and every failure, in real processes.

Looked for in all that others see, in each encoding that is usual. A deliberate leak ends the test: it must be found in
every one of these places, or that nothing was found before would prove nothing.
"""

import base64
import gzip
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import celery
import pytest
import redis
import requests

from sandbox.control import Sandbox
from schemas.event import Event, Reason
from tests.acceptance.stack import Stack, stack_at
from tests.acceptance.watching import Collector, collecting
from tests.canaries import Canaries
from tests.console_peer import Browser
from tests.marked import ONE, dump, keyed
from tests.pipeline import TENANT
from tests.running import ROOT, free_port, wait_until
from tests.tenants import ENVIRON
from worker.ledger import queries, sessions
from worker.ledger.events import Ledger
from worker.ledger.sealed import SEALED
from worker.queues import HINT_QUEUE, RECEIVE_QUEUE

#: Tenants whose Rhythm fails as a whole, and what it answers; one that writes nothing.
AWAY = {"down": 500, "slow": 429, "barred": 401}
QUIET = "quiet"
BASIC = ("certiverse", ENVIRON["ACME_CERTIVERSE"])
_SOURCES = """
[tenants.acme.sources.drillster]
credentials = [ { kind = "basic", user = "certiverse", password = "env:ACME_CERTIVERSE" } ]
third_party = "EXAMPLE"
[tenants.acme.sources.prov]
credentials = [ { kind = "basic", user = "certiverse", password = "env:ACME_CERTIVERSE" } ]
"""
_TENANT = """
[tenants.{name}]
{more}
[tenants.{name}.rhythm]
url = "{url}"
tenant_id = "{name}.org"
credentials = {{ kind = "api_key", key = "env:ACME_RHYTHM" }}
[tenants.{name}.sources.certiverse]
credentials = [ {{ kind = "basic", user = "certiverse", password = "env:ACME_CERTIVERSE" }} ]
[[tenants.{name}.exams]]
exam_id = "exam-1"
codes = ["CERT-1"]
score = "scaled"
"""
#: Several commands in one process, as each would run by itself.
_COMMANDS = """
import json, sys
from worker.cli.app import main
for arguments in json.loads(sys.stdin.readline()):
    sys.argv = ["examrelay", *arguments]
    try:
        main()
    except SystemExit:
        pass
    sys.stdout.flush()
"""


class Monitor:
    """Every command that any process sends to Redis, as Redis shows it."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self.seen: list[bytes] = []
        self._ready = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()
        assert self._ready.wait(10)

    def _listen(self) -> None:
        with suppress(redis.RedisError, OSError, ValueError), self._client.monitor() as monitor:
            self._ready.set()
            while True:
                self.seen.append(monitor.connection.read_response())


class Farm:
    """All processes, and what was planted where."""

    def __init__(self, stack: Stack, sentry: Collector) -> None:
        self.stack, self.sentry, self.client = stack, sentry, stack.client
        self.canaries = Canaries()
        self.monitor = Monitor(redis.Redis.from_url(stack.valkey.url))
        self.ledger = Ledger(self.client, timedelta(seconds=60), [ONE])
        self.events: dict[str, tuple[str, str]] = {}
        self.bodies: dict[str, bytes] = {}
        self.met: set[str] = set()
        self.told: list[bytes] = []
        self.urls: list[str] = []
        self.browser = Browser(f"http://127.0.0.1:{stack.environ['EXAMRELAY_CONSOLE_PORT']}")
        self.browser.session.hooks["response"].append(self._visited)
        self._parked: list[subprocess.Popen[bytes]] = []

    def _visited(self, answer: requests.Response, **_: Any) -> None:
        self.urls += [answer.url, answer.headers.get("location", "")]

    # Planting

    def send(self, name: str, body: bytes, tenant: str = TENANT, source: str = "certiverse") -> None:
        """Deliver a body whose request is marked as well, every other one packed."""
        mark, packed = self.canaries.mark, len(self.events) % 2
        headers = {"User-Agent": mark(), "X-Candidate": mark(), "Referer": f"https://example.org/?who={mark()}"}
        answer = requests.post(
            f"{self.stack.url}/v1/{tenant}/{source}?candidate={mark()}",
            gzip.compress(body) if packed else body,
            auth=BASIC,
            headers=headers | ({"Content-Encoding": "gzip"} if packed else {}),
            timeout=10,
        )
        assert answer.status_code == 202, answer.text
        self.told.append(answer.content)
        self.events[name], self.bodies[name] = (tenant, answer.json()["id"]), body

    def result(self, name: str, number: object = None, tenant: str = TENANT, **more: Any) -> None:
        self.send(name, self.canaries.result(number or name, **more), tenant)

    def seed(self, *names: str, **more: Any) -> None:
        self.stack.rhythm.seed("acme.org", [self.canaries.open_one(name, **more) for name in names])

    def event(self, name: str) -> Event:
        tenant, id = self.events[name]
        found = queries.event(self.client, tenant, id)
        assert found is not None
        return found

    def is_now(self, **expected: str) -> None:
        """Wait until each of these events has had its reason, or result, or state."""
        waiting, now = dict(expected), dict[str, str]()

        def came() -> bool:
            for name in list(waiting):
                event = self.event(name)
                now[name] = str(event.reason or event.result or event.state)
                self.met.add(now[name])
                if now[name] == waiting[name]:
                    del waiting[name]
            return not waiting

        try:
            wait_until(came, 40, "the events' reasons")
        except AssertionError as late:
            raise AssertionError(f"{late}: {[(name, now[name], wanted) for name, wanted in waiting.items()]}") from None

    def due(self, name: str, **fields: object) -> None:
        """Due at once, with these fields: as if time had gone by."""
        tenant, id = self.events[name]
        event = self.event(name)
        if fields:
            self.client.hset(f"er:{tenant}:event:{id}", mapping=fields)  # type: ignore[arg-type]
        self.client.zadd(f"er:{tenant}:due:{'process' if event.state == 'received' else 'sync'}", {id: 0})

    # Searching

    def stored(self) -> dict[str, bytes]:
        """What Redis holds, has on disk, and was told."""
        keys = b"\n".join(part for parts in dump(self.client).values() for part in parts)
        folder = self.stack.valkey.folder / "appendonlydir"
        file = b"\n".join(path.read_bytes() for path in folder.iterdir())
        return {"Redis, every key": keys, "Redis' file": file, "Redis, every command": b"\n".join(self.monitor.seen)}

    def told_at_once(self) -> dict[str, bytes]:
        """What processes tell others by themselves."""
        logs = b"".join(path.read_bytes() for path in self.stack.folder.glob("*.log"))
        return {"logs": logs, "Sentry": b"".join(self.sentry.received), "Flower": self._flower()}

    def places(self) -> dict[str, bytes]:
        """What others see, by where."""
        return self.told_at_once() | {
            "metrics": requests.get(f"{self.stack.url}/metrics", timeout=10).content,
            "console": self._console(),
            "process titles": self._titles(),
            "commands": self._commands(),
        }

    def answers(self) -> dict[str, bytes]:
        """What senders and readers are told, and where the browser has been."""
        reader = {"Authorization": f"Bearer {ENVIRON['ACME_READ']}"}
        for tenant, id in self.events.values():
            if tenant == TENANT:
                url = f"{self.stack.url}/v1/{tenant}/events/{id}"
                self.told.append(requests.get(url, headers=reader, timeout=10).content)
        self.told.append(requests.get(f"{self.stack.url}/readyz", timeout=10).content)
        return {"answers": b"\n".join(self.told), "URLs": "\n".join(self.urls).encode()}

    def _flower(self) -> bytes:
        url, who = f"http://127.0.0.1:{self.stack.environ['FLOWER_PORT']}", ("operator", "s3cret")
        table = "/tasks/datatable?draw=1&start=0&length=1000&order[0][column]=0&columns[0][data]=name&search[value]="
        paths = ("/workers?json=1", "/tasks", table, "/api/tasks", "/api/workers?refresh=true", "/broker")
        return b"\n".join(requests.get(url + path, auth=who, timeout=10).content for path in paths)

    def _console(self) -> bytes:
        paths = ["/", "/events", "/decide", "/strays", "/configuration"]
        paths += [f"/decide/acme/{reason.policy.ends_in}/{reason}" for reason in Reason]
        paths += [f"/events/{tenant}/{id}" for tenant, id in self.events.values()]
        return b"\n".join(self.browser.get(path).html.encode() for path in paths)

    def _titles(self) -> bytes:
        mine = {process.pid for process in (*self.stack.running.values(), *self._parked)}
        return b"\n".join(
            b"".join((folder / name).read_bytes() for name in ("cmdline", "comm"))
            for folder in Path("/proc").glob("[0-9]*")
            if _group(folder) in mine
        )

    def _commands(self, *given: list[str], typed: str = "") -> bytes:
        shown = next(iter(self.events.values()))[1]
        several: tuple[list[str], ...] = (
            *(["status"], ["check"], ["settings"], ["events", "list"], ["held", "list"], ["dead", "list"]),
            *(["strays", "list"], ["audit"], ["plan", "--limit", "50", "--state", "held"]),
        )
        asked = given or tuple(
            [*one, *more] for one in several for more in ([], ["--json"]) if one != ["settings"] or not more
        )
        asked = (
            asked
            if given
            else (*asked, *(["events", "show", id] for _, id in self.events.values()), ["trace", "--event", shown])
        )
        run = subprocess.run(
            [sys.executable, "-c", _COMMANDS],
            input=f"{json.dumps(asked)}\n{typed}".encode(),
            cwd=ROOT,
            env=self.stack.environ,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return run.stdout + run.stderr

    def close(self) -> None:
        for process in self._parked:
            process.kill()
            process.communicate()
        self.browser.session.close()


def _group(folder: Path) -> int:
    with suppress(OSError):
        return os.getpgid(int(folder.name))
    return 0


def first_wave(farm: Farm) -> None:
    """Everything that one delivery can meet, in one batch where it goes."""
    canaries, faults = farm.canaries, farm.stack.rhythm.fault
    farm.seed("ok", "copy", "unscored", "integrity", "ancient", "against", "bare", "edited", "again", "late")
    farm.seed("same", status="passed", score=82.5, exam_date="2026-05-04T12:30:00Z")
    farm.seed("settled", status="failed")
    farm.seed("locked", sys_locked=True)
    farm.seed("rejected", "missing", "altered", "other", "twice")
    farm.stack.rhythm.seed("acme.org", [canaries.open_one("twice") | {"id": "reg-twin"}])
    for name, status in (("rejected", 422), ("missing", 409)):
        said = {
            "body": {"message": canaries.words(), "errors": [canaries.mark()]},
            "times": None,
            "ids": [f"reg-{name}"],
        }
        faults("item_error", status=status, **said)
        faults("status", kind="patch", status=status, headers={"X-Told": canaries.mark()}, **said)
    faults("alter", ids=["reg-altered"], fields={"score": 1.5, "name": canaries.mark()}, times=None)
    for tenant, status in AWAY.items():
        said = {"message": canaries.words(), "error_description": canaries.mark()}
        faults(
            "status", tenant=f"{tenant}.org", status=status, body=said, headers={"X-Told": canaries.mark()}, times=None
        )
        farm.result(tenant, tenant=tenant)
    farm.stack.rhythm.seed(f"{QUIET}.org", [canaries.open_one(QUIET)])
    farm.result(QUIET, tenant=QUIET)
    for name in ("ok", "same", "settled", "locked", "rejected", "missing", "altered", "late"):
        farm.result(name)
    farm.result("unknown", exam="CERT-9")
    farm.result("unscored", passed=None)
    farm.result("integrity", termination=canaries.words())
    farm.result("ancient", completed="2020-01-01T00:00:00Z")
    farm.result("against", reportedScore=50, cutScore=70, cutScoreType="Scaled", scaled=50)
    farm.result("bare", score=None)
    farm.result("nobody", registration=None, student=None, email="")
    farm.result("nowhere")
    farm.result("twice", registration=None)
    farm.result("other", student=f"{canaries.prefix}-somebody")
    farm.result("edited")
    farm.result("again", rescore=True)
    farm.send("invalid", json.dumps([canaries.mark(), {canaries.mark(): canaries.words()}]).encode())
    farm.send("no json", f'{{"candidate": {{"lastName": "{canaries.mark()}", "email": {canaries.words()}'.encode())
    farm.send("form", f"email={canaries.mark()}%40example.org&name={canaries.mark()}".encode())
    farm.send("latin", f"<r><name>Ä {canaries.mark()}</name></r>".encode("utf-16"))
    farm.send("large", json.dumps({canaries.mark(): [canaries.words() for _ in range(400)]}).encode())
    other_platforms(farm)


def other_platforms(farm: Farm) -> None:
    """Drillster and Prov: a result, a body that does not fit, and a message that is no result."""
    mark = farm.canaries.mark
    prov = {
        "candidateId": mark(),
        "email": f"{mark()}@example.org",
        "candidateName": farm.canaries.words(),
        "examCode": "CERT-1",
    }
    farm.send("prov", json.dumps(prov | {"result": "Pass", "examDate": "2026-05-04T12:30:00Z"}).encode(), source="prov")
    farm.send("prov odd", json.dumps(prov | {"overallScore": mark(), mark(): mark()}).encode(), source="prov")
    user = {"emailAddress": f"{mark()}@example.org", "name": farm.canaries.words(), "id": mark()}
    drillster = {
        "eventId": "e-1",
        "id": "attempt-1",
        "test": {"id": "CERT-1", "name": mark()},
        "ticket": {"reference": mark()},
    }
    drillster |= {
        "user": user | {"thirdPartyIds": [{"id": mark(), "thirdParty": "EXAMPLE"}]},
        "score": {"percentage": 80},
    }
    times = {"started": "2026-05-04T12:00:00Z", "completed": "2026-05-04T12:30:00Z"}
    for name, more in (
        ("drill", times | {"eventType": "TEST_COMPLETED"}),
        ("asked", {"eventType": "QUESTION_ANSWERED"}),
    ):
        farm.send(name, json.dumps(drillster | more).encode(), source="drillster")
    farm.send("drill odd", json.dumps(drillster | times | {"completed": mark()}).encode(), source="drillster")


#: What must have been met of that, or marks that are not found prove nothing.
FIRST = {
    "ok": "written",
    "same": "unchanged",
    "settled": "registration_settled",
    "locked": "registration_locked",
    "rejected": "rhythm_rejected",
    "missing": "missing_reference",
    "altered": "rhythm_altered",
    "down": "rhythm_unavailable",
    "slow": "rhythm_throttled",
    "barred": "credentials_refused",
    QUIET: "writes_off",
    "unknown": "unknown_exam",
    "unscored": "result_unscored",
    "integrity": "integrity_review",
    "ancient": "result_ancient",
    "against": "result_contradictory",
    "bare": "score_missing",
    "nobody": "nobody_named",
    "nowhere": "registration_not_found",
    "twice": "registration_ambiguous",
    "other": "registration_mismatch",
    "edited": "written",
    "again": "written",
    "late": "written",
    "invalid": "invalid_payload",
    "no json": "invalid_json",
    "form": "invalid_json",
    "latin": "invalid_json",
    "large": "body_too_large",
    "prov": "registration_not_found",
    "prov odd": "invalid_payload",
    "drill": "registration_not_found",
    "asked": "ignored",
    "drill odd": "invalid_payload",
}


def later_waves(farm: Farm) -> None:
    """What needs something before it: copies, rescores, edits, dead workers, a bug, three days without an answer."""
    farm.send("copy", farm.bodies["ok"] + b" ")
    drill = json.loads(farm.bodies["drill"]) | {"id": "attempt-2", "user": {"emailAddress": farm.canaries.mark()}}
    farm.send("drill 2", json.dumps(drill).encode(), source="drillster")
    farm.stack.rhythm.edit("acme.org", "reg-edited", score=12.5, name=farm.canaries.mark())
    farm.result("edited 2", "edited", rescore=True, score=60)
    farm.result("again 2", "again", rescore=True, score=61)
    farm.is_now(**{"copy": "duplicate", "edited 2": "registration_edited", "again 2": "written"})
    farm.is_now(**{"drill 2": "result_conflict"})
    farm.send("again 3", farm.bodies["again"] + b" ")
    # Answers that no release of ours gives: the task meets an exception, whose message quotes them.
    assert farm.ledger.replay(*farm.events["unknown"], "op", {"accept": [farm.canaries.mark()]})[0]
    farm.due("nowhere", lease="of a worker that died", batch=1, alone=2)
    farm.is_now(**{"again 3": "result_repeated", "unknown": "internal_error", "nowhere": "worker_killer"})
    farm.due("unknown", first_attempt_at=1)
    farm.is_now(unknown="retries_expired")


def refusals(farm: Farm) -> None:
    """Requests that are refused, with marks in all that they carry."""
    mark, url, told = farm.canaries.mark, farm.stack.url, farm.told
    for path, auth in (
        (f"/v1/acme/certiverse?who={mark()}", (mark(), mark())),
        (f"/v1/{mark()}/certiverse", BASIC),
        (f"/v1/acme/{mark()}", BASIC),
        (f"/{mark()}?{mark()}={mark()}", (mark(), mark())),
        (f"/v1/acme/events/{mark()}", (mark(), mark())),
    ):
        headers = {"X-Candidate": mark(), "Cookie": f"who={mark()}"}
        told.append(
            requests.post(url + path, farm.canaries.result(mark()), auth=auth, headers=headers, timeout=10).content
        )
        told.append(requests.get(url + path, headers={"Authorization": f"Bearer {mark()}"}, timeout=10).content)
    for name in ("Content-Encoding", "Transfer-Encoding", "Expect", "Content-Length"):
        told.append(raw(farm, f"POST /v1/acme/certiverse HTTP/1.1\r\nHost: h\r\n{name}: {mark()}\r\n\r\n{mark()}"))
    token = base64.b64encode(":".join(BASIC).encode()).decode()
    head = f"POST /v1/acme/certiverse HTTP/1.1\r\nHost: h\r\nAuthorization: Basic {token}\r\n"
    told.append(raw(farm, f"{head}Content-Encoding: gzip\r\nContent-Length: 40\r\n\r\n{mark()}{mark()}"))
    told.append(raw(farm, f"{head}Transfer-Encoding: chunked\r\n\r\n{mark()}\r\n{mark()}\r\n"))
    told.append(raw(farm, f"GET /{mark()} {mark()} HTTP/9.9 {mark()}\r\n{mark()}\r\n\r\n"))
    with pytest.raises(AssertionError, match="no form"):
        farm.browser.sign_in(mark(), mark()).form("/nothing")


def raw(farm: Farm, request: str) -> bytes:
    """What the receiver answers to bytes that no client library sends."""
    answer = b""
    with closing(socket.create_connection(("127.0.0.1", farm.stack.port), 10)) as sock:
        sock.sendall(request.encode())
        sock.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while part := sock.recv(65536):
                answer += part
    return answer


def garbage(farm: Farm) -> None:
    """Messages of Celery clients that no task can take, and entries that are no messages."""
    canaries, mark = farm.canaries, farm.canaries.mark
    with celery.Celery(broker=farm.stack.valkey.url, set_as_current=False) as app:
        for name, args, kwargs in (
            ("tasks.receive", ["acne", "certiverse", canaries.result("stray").decode()], {}),
            ("tasks.receive", [mark(), mark(), mark()], {}),
            ("tasks.receive", [], {mark(): mark()}),
            ("tasks.nothing", [mark()], {"candidate": mark()}),
        ):
            app.send_task(name, args, kwargs, queue=RECEIVE_QUEUE, headers={"x-candidate": mark()})
    (entry,) = [message("tasks.receive", mark())]
    farm.client.lpush(RECEIVE_QUEUE, entry, mark(), json.dumps({"lastName": mark(), "headers": {"id": mark()}}))
    farm.client.lpush(HINT_QUEUE, f"[{mark()}")
    wait_until(lambda: (queries.stray_count(farm.client), queries.malformed(farm.client)) == (5, 3), 20, "strays")


def message(task: str, body: str) -> str:
    """A Celery message with a body that is no JSON."""
    properties = {
        "delivery_tag": "tag",
        "delivery_info": {"exchange": "", "routing_key": RECEIVE_QUEUE},
        "body_encoding": "base64",
    }
    headers = {"id": "a-message", "task": task, "lang": "py"}
    encoded = base64.b64encode(body.encode()).decode()
    whole = {"body": encoded, "content-type": "application/json", "content-encoding": "utf-8"}
    return json.dumps(whole | {"headers": headers, "properties": properties | {"correlation_id": "a-message"}})


def look(farm: Farm) -> None:
    """Personal data is shown where it is asked for, by console and command: there was some to be found."""
    tenant, id = farm.events["twice"]
    found = farm.browser.send(farm.browser.get("/events"), "/search", words=farm.canaries.person("twice")["email"])
    assert id in found.html
    page = farm.browser.get(f"/events/{tenant}/{id}")
    assert farm.canaries.shown(farm.browser.send(page, f"/events/{tenant}/{id}/look", what="payload").html.encode())
    assert farm.canaries.shown(farm._commands(["events", "show", id, "--payload", "--words"]))


def leak(farm: Farm) -> str:
    """A mark where nothing personal may be: as the name of a tenant, in a hint, and as an argument of a process."""
    name = farm.canaries.mark()
    farm._parked.append(
        subprocess.Popen([sys.executable, "-c", "input()", name], stdin=subprocess.PIPE, start_new_session=True)
    )
    farm.client.sadd("er:tenants", name)
    with celery.Celery(broker=farm.stack.valkey.url, set_as_current=False) as app:
        app.send_task("tasks.process", [name], queue=HINT_QUEUE)
    return name


def finds(farm: Farm, places: dict[str, bytes]) -> dict[str, list[bytes]]:
    return {name: shown[:5] for name, content in places.items() if (shown := farm.canaries.shown(content))}


@pytest.fixture
def farm(rhythm: Sandbox, tmp_path: Path) -> Iterator[Farm]:
    more = "".join(_TENANT.format(name=name, url=rhythm.url, more="") for name in AWAY)
    more += _TENANT.format(name=QUIET, url=rhythm.url, more='writes = "hold"')
    asked = {
        "EXAMRELAY_PAYLOAD_KEYS": keyed(ONE),
        "EXAMRELAY_MAX_BODY_BYTES": "16384",
        "EXAMRELAY_LOG_LEVEL": "debug",
        "EXAMRELAY_SWEEP_SECONDS": "1",
        "EXAMRELAY_CONSOLE_PORT": str(free_port()),
        "FLOWER_PORT": str(free_port()),
        "FLOWER_BASIC_AUTH": "operator:s3cret",
        "SENTRY_TRACES_SAMPLE_RATE": "1",
    }
    with (
        collecting() as sentry,
        stack_at(
            tmp_path,
            rhythm,
            {"tenant": 'rescore_order = "received"', "more": _SOURCES + more},
            SENTRY_DSN=sentry.dsn,
            **asked,
        ) as stack,
    ):
        stack.start("web", "console", "flower")
        made = Farm(stack, sentry)
        yield made
        made.close()


def test_no_canary_is_found_outside_the_ledger_and_with_keys_none_in_redis(
    farm: Farm, record_property: Callable[[str, object], None]
) -> None:
    first_wave(farm)
    farm.stack.start("worker", "sweeper", "beat")
    farm.is_now(**FIRST)
    later_waves(farm)
    refusals(farm)
    assert farm.stack.rhythm.record("acme.org", "reg-ok")["registration"]["score"] == 82.5
    stored = {parts[1][:1] for name, parts in dump(farm.client).items() if ":payload:" in name}
    assert stored == {SEALED}
    assert finds(farm, farm.stored()) == {}
    garbage(farm)
    code = sessions.invite(farm.client, "max")
    assert farm.browser.sign_in("max", code).path == "/"
    farm._commands(["forget", "--candidate", "-", "--yes"], typed=farm.canaries.person("settled")["student"])
    farm.is_now(settled="forgotten")
    look(farm)
    assert {str(reason) for reason in Reason} <= farm.met
    assert len(farm.canaries.planted) >= 500
    places = farm.places() | farm.answers()
    assert finds(farm, places | {"Redis, every key": farm.stored()["Redis, every key"]}) == {}
    record_property("canaries planted", len(farm.canaries.planted))
    record_property("places searched", len(places) + 3)

    name = leak(farm)
    wait_until(lambda: {"logs", "Sentry", "Flower"} <= finds(farm, farm.told_at_once()).keys(), 30, "the leak")
    places = farm.stored() | farm.places()
    assert finds(farm, places).keys() == places.keys(), "what is there is found"
    late = [one for told in farm.told_at_once().values() for one in farm.canaries.shown(told)]
    assert [one for one in late if name.encode() not in one] == [], "and nothing that was told later"
