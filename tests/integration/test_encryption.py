"""Marked payloads through success and every failure: with keys, no mark in a dump of Redis nor in its file on disk."""

import base64
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue

from sandbox.control import Sandbox
from schemas.event import Event, Reason
from schemas.outcome import Source
from tests.events import registration
from tests.marked import MARK, ONE, SCORE, VERDICT, dump, having, keyed, marked, shows, spellings, theirs, unpacked
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import Valkey
from worker import celery_broker
from worker.ledger.client import text
from worker.ledger.sealed import Sealer

SOURCES = """
[tenants.acme.sources.drillster]
credentials = [ { kind = "basic", user = "drillster", password = "env:ACME_READ" } ]
third_party = "EXAMPLE"
[tenants.acme.sources.prov]
credentials = [ { kind = "bearer", token = "env:ACME_READ" } ]
"""


class Run:
    """A pipeline, with what every scenario needs."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.client = pipeline.services.redis
        self.ended: set[tuple[str, str | None]] = set()

    def go(self, *bodies: bytes, source: Source = Source.CERTIVERSE) -> list[Event]:
        """Deliver, process, sync, with an open gate and nothing else due."""
        for name in (f"er:{TENANT}:gate", f"er:{TENANT}:due:sync", f"er:{TENANT}:due:process"):
            self.client.delete(name)
        ids = [self.pipeline.deliver(body, source) for body in bodies]
        self.pipeline.process()
        self.pipeline.sync()
        found = [self.pipeline.event(id) for id in ids]
        self.ended |= {(one.state, one.reason or one.result) for one in found}
        return found

    def seed(self, *registrations: dict[str, Any]) -> None:
        self.pipeline.rhythm.seed(ORG, registrations)

    def fault(self, action: str, **settings: Any) -> None:
        self.pipeline.rhythm.clear_faults()
        self.pipeline.rhythm.fault(action, **settings)


def succeed(run: Run) -> None:
    run.seed(theirs(1), theirs(2, status="passed", score=SCORE, exam_date="2026-05-04T12:30:00Z"))
    run.go(marked(1), marked(2))
    run.go(marked(1) + b" ")  # the same result in other bytes
    run.go(marked(1, score=SCORE + 1, rescore=True))
    run.go(json.dumps(json.loads(marked(3)) | {"examResult": None}).encode())


def other_sources(run: Run) -> None:
    prov = {"candidateId": f"{MARK}-prov", "email": f"{MARK}@example.org", "examCode": "CERT-1", "result": "Pass"}
    run.seed(registration("reg-prov", student_id=f"{MARK}-prov"), registration("reg-drill", student_id=f"{MARK}-third"))
    run.go(json.dumps(prov | {"examDate": "2026-05-04T12:30:00Z"}).encode(), source=Source.PROV)
    run.go(json.dumps(prov | {"candidateId": "", "overallScore": MARK}).encode(), source=Source.PROV)
    user = {"emailAddress": f"{MARK}@example.org", "name": f"{MARK} Doe", "id": f"{MARK}-user"}
    drillster = {
        "eventType": "TEST_COMPLETED",
        "eventId": "e-1",
        "id": "attempt-1",
        "test": {"id": "CERT-1"},
        "started": "2026-05-04T12:00:00Z",
        "completed": "2026-05-04T12:30:00Z",
        "score": {"percentage": SCORE},
        "user": user | {"thirdPartyIds": [{"id": f"{MARK}-third", "thirdParty": "EXAMPLE"}]},
    }
    run.go(json.dumps(drillster).encode(), source=Source.DRILLSTER)


def not_understood(run: Run) -> None:
    run.go(f'{{"candidate": {{"lastName": "{MARK}"'.encode(), f"{MARK}".encode(), f'{{"a": {MARK}}}'.encode())
    run.go(f'["{MARK}"]'.encode())
    for member in ("examDelivery", "candidate", "exam", "examResult"):
        whole = json.loads(marked("odd"))
        for name in whole[member]:
            run.go(json.dumps(whole | {member: whole[member] | {name: [MARK]}}).encode())
        run.go(json.dumps(whole | {member: {MARK: {MARK: [MARK]}}}).encode())
    id = run.pipeline.deliver(f"{MARK} stub".encode())
    run.client.hset(f"er:{TENANT}:event:{id}", "problem", Reason.BODY_TOO_LARGE)
    run.go()


def held(run: Run) -> None:
    run.seed(*(theirs(number) for number in range(20, 30)))
    run.go(marked(20, exam="UNKNOWN"), marked(21, passed=None), marked(22, termination=f"{MARK} was seen with a phone"))
    run.go(marked(23, completed="2020-01-01T00:00:00Z"))
    run.go(marked(24), marked(24, score=SCORE + 1))
    run.seed(theirs("a", student_id=f"{MARK}-twice"), theirs("b", student_id=f"{MARK}-twice"))
    run.go(marked(25, student=f"{MARK}-twice", registration=None))
    run.go(marked(26, student=f"{MARK}-another"))
    run.seed(theirs(27, status="failed"), theirs(28, sys_locked=True))
    run.go(marked(27), marked(28), marked("none"))
    run.seed(theirs(30))
    run.go(marked(30))
    run.pipeline.rhythm.edit(ORG, "reg-30", score=12.5)
    run.go(marked(30, score=SCORE + 2, rescore=True))
    for event in run.go(marked(21, passed=None, delivery="again")):
        run.pipeline.ledger.replay(TENANT, event.id, "op", {"verdict": "passed", "registration": "reg-21"})


def rhythm_refuses(run: Run) -> None:
    body = {"message": f"{MARK} is not valid", "errors": [MARK]}
    for number, (status, kind) in enumerate(
        [(400, "patch"), (409, "patch"), (404, "patch"), (401, "patch"), (429, "patch"), (500, "patch"), (500, "get")],
        40,
    ):
        run.seed(theirs(number))
        run.fault("status", kind=kind, status=status, body=body, headers={"X-Told": MARK}, times=None)
        run.go(marked(number))
    for number, action in enumerate(["reset", "apply_then_lose"], 50):
        run.seed(theirs(number))
        run.fault(action, kind="patch")
        run.go(marked(number))
    run.seed(theirs(60), theirs(61))
    run.fault("alter", ids=["reg-60"], fields={"score": 1.5}, kind="patch")
    run.go(marked(60))
    run.fault("item_error", ids=["reg-61"], status=422)
    run.seed(theirs(61), theirs(62))
    run.go(marked(61), marked(62))
    run.pipeline.rhythm.clear_faults()


def bugs(run: Run) -> None:
    id = run.pipeline.deliver(marked(70))
    payload = f"er:{TENANT}:payload:{id}"
    run.client.rename(payload, "kept")
    run.client.set(payload, b"\x01nothing")
    run.pipeline.sync()
    run.ended.add((run.pipeline.event(id).state, run.pipeline.event(id).reason))
    run.client.rename("kept", payload)


def strays(run: Run) -> None:
    """Queue entries that are not Celery messages, as a worker's consumer meets them."""
    celery_broker.install(run.pipeline.services.settings.sealing_keys)
    queue = Queue("stray")
    url = run.pipeline.services.settings.redis_url.get_secret_value()
    with Connection(url, transport=celery_broker.Transport) as connection:
        run.client.lpush("stray", f'{{"lastName": "{MARK}"}}', MARK)
        with Consumer(connection, [queue], callbacks=[], accept=["json"]):
            while run.client.llen("stray"):
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.3)
    celery_broker.install()
    assert run.client.llen("er:malformed") == 2


SCENARIOS: list[Callable[[Run], None]] = [succeed, other_sources, not_understood, held, rhythm_refuses, bugs]
#: What the scenarios must have met; or marks that are not found prove nothing.
MET = {
    ("synced", "written"),
    ("synced", "unchanged"),
    ("duplicate", None),
    ("dead", "invalid_json"),
    ("dead", "invalid_payload"),
    ("held", "unknown_exam"),
    ("held", "result_unscored"),
    ("held", "integrity_review"),
    ("held", "result_ancient"),
    ("held", "result_conflict"),
    ("held", "registration_ambiguous"),
    ("held", "registration_mismatch"),
    ("held", "registration_settled"),
    ("held", "registration_edited"),
    ("ready", "registration_locked"),
    ("ready", "registration_not_found"),
    ("ready", "rhythm_unavailable"),
    ("ready", "rhythm_throttled"),
    ("ready", "credentials_refused"),
    ("dead", "rhythm_rejected"),
    ("dead", "missing_reference"),
    ("held", "rhythm_altered"),
    ("received", "internal_error"),
}


def of_events(names: set[str]) -> set[str]:
    """The kinds of keys among a tenant's: payload, outcome, event ..."""
    return {name.removeprefix(f"er:{TENANT}:").partition(":")[0] for name in names}


@pytest.fixture
def own(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    """A Valkey whose file on disk is all this test's; hints go to the one of all tests."""
    server = Valkey().start()
    monkeypatch.setenv("REDIS_URL", server.url)
    yield server
    server.close()


def folder_of(server: Valkey) -> Path:
    with redis.Redis.from_url(server.url) as client:
        return Path(client.config_get("dir")["dir"]) / client.config_get("appenddirname")["appenddirname"]


def test_with_keys_no_mark_is_in_redis_nor_in_its_file(
    own: Valkey, rhythm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMRELAY_PAYLOAD_KEYS", keyed(ONE))
    with pipeline_at(tmp_path, rhythm, more=SOURCES) as pipeline:
        run = Run(pipeline)
        for scenario in SCENARIOS:
            scenario(run)
            assert having(dump(run.client), MARK, str(SCORE), VERDICT) == set(), scenario.__name__
        assert run.ended >= MET
        assert MARK.encode() in b"".join(pipeline.ledger.payload(TENANT, id) or b"" for id in payloads(run.client))
        written = b"".join(path.read_bytes() for path in folder_of(own).iterdir())
        assert b"er:acme:payload:evt_" in written
        for part in (written, *unpacked(written)):
            assert not any(shows(part, spellings(mark)) for mark in (MARK, str(SCORE), VERDICT))
        strays(run)  # last: who puts garbage on a queue has written it to the file in the clear
        assert having(dump(run.client), MARK) == set()


def test_without_keys_marks_are_in_payloads_rhythm_s_words_and_strays_only(
    client: "redis.Redis", rhythm: Sandbox, tmp_path: Path
) -> None:
    with pipeline_at(tmp_path, rhythm, more=SOURCES) as pipeline:
        run = Run(pipeline)
        for scenario in SCENARIOS:
            scenario(run)
        assert run.ended >= MET
        found = having(dump(client), MARK)
        strays(run)
        assert having(dump(client), MARK) - found == {"er:malformed"}
    assert of_events(found) == {"event", "payload"}, "in an event Rhythm's own words"
    assert all(b"words" in client.hkeys(name) for name in found if ":event:" in name)


def payloads(client: "redis.Redis") -> list[str]:
    return [text(name).rpartition(":")[2] for name in client.keys(f"er:{TENANT}:payload:*")]


def test_the_finder_finds(client: "redis.Redis") -> None:
    """Without this the tests above would prove nothing."""
    encoded = base64.b64encode(f"..{MARK}..".encode())
    for name, put in {
        "string": lambda: client.set("string", f"x{MARK}y"),
        "hash": lambda: client.hset("hash", "field", MARK.upper()),
        "field": lambda: client.hset("field", MARK, "x"),
        "list": lambda: client.rpush("list", "a", MARK),
        "set": lambda: client.sadd("set", MARK),
        "zset": lambda: client.zadd("zset", {MARK: 1}),
        "base64": lambda: client.set("base64", encoded),
        "hex": lambda: client.set("hex", MARK.encode().hex()),
        f"name:{MARK}": lambda: client.set(f"name:{MARK}", "x"),
    }.items():
        put()
        assert name in having(dump(client), MARK)
    client.set("plain", Sealer().seal(f"{MARK} {os.urandom(8).hex()}".encode(), "x"))
    client.set("sealed", Sealer([ONE]).seal(MARK.encode(), "x"))
    found = having(dump(client), MARK)
    assert "plain" in found
    assert "sealed" not in found
