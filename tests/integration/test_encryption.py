"""Marked payloads through success and every failure: with keys, no mark in a dump of Redis nor in its file on disk."""

import base64
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import zstandard
from kombu import Connection, Consumer, Queue

from sandbox.control import Sandbox
from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from tests.acceptance.stack import stack_at
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import Valkey, wait_until
from worker import broker
from worker.ledger.client import text
from worker.ledger.sealed import SEALED, Sealer, key_id

ONE, OTHER = bytes(range(32)), bytes(range(32, 64))
SOURCES = """
[tenants.acme.sources.drillster]
credentials = [ { kind = "basic", user = "drillster", password = "env:ACME_READ" } ]
third_party = "EXAMPLE"
[tenants.acme.sources.prov]
credentials = [ { kind = "bearer", token = "env:ACME_READ" } ]
"""
#: In every payload. Lower case, as e-mail addresses are made.
MARK = f"marked{secrets.token_hex(6)}"
#: A result is personal as well: its score, and the verdict as it is stored.
SCORE, VERDICT = 71.93, '"passed"'
Stored = dict[str, list[bytes]]


def keyed(*keys: bytes) -> str:
    return ",".join(base64.b64encode(key).decode() for key in keys)


def marked(number: object, **more: Any) -> bytes:
    """A Certiverse result with a mark in everything that is a person's, or that a person typed."""
    told = {"student": f"{MARK}-student-{number}", "email": f"{MARK}-{number}@example.org", "score": SCORE}
    told |= {"delivery": f"dlv-{number}", "registration": f"reg-{number}"}
    body = json.loads(certiverse(**told | more))
    body["candidate"] |= {"candidateId": f"{MARK}-id", "firstName": f"{MARK}-first", "lastName": f"{MARK}-last"}
    body["examReservation"] = {"notes": f"{MARK}-notes", "accommodations": [f"{MARK}-accommodation"]}
    body["examDelivery"]["deliveryExceptions"]["comment"] = f"{MARK}-comment"
    return json.dumps(body).encode()


def theirs(number: object, **more: Any) -> dict[str, Any]:
    """The registration that `marked` is about."""
    told = {"student_id": f"{MARK}-student-{number}", "email_address": f"{MARK}-{number}@example.org"}
    return registration(f"reg-{number}", name=f"{MARK}-first {MARK}-last", **told | more)


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
        "eventType": "TEST_COMPLETED", "eventId": "e-1", "id": "attempt-1", "test": {"id": "CERT-1"},
        "started": "2026-05-04T12:00:00Z", "completed": "2026-05-04T12:30:00Z", "score": {"percentage": SCORE},
        "user": user | {"thirdPartyIds": [{"id": f"{MARK}-third", "thirdParty": "EXAMPLE"}]},
    }  # fmt: skip
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
    run.pipeline.process()
    run.client.set(f"er:{TENANT}:outcome:{id}", run.pipeline.ledger.sealer.seal(b"{}", id))  # not an outcome
    run.pipeline.sync()
    run.ended.add((run.pipeline.event(id).state, run.pipeline.event(id).reason))


def strays(run: Run) -> None:
    """What is on a queue and no message, as a worker's consumer meets it."""
    run.pipeline.ledger.park(f"{MARK} stray".encode())
    broker.install(run.pipeline.services.settings.sealing_keys)
    queue = Queue("stray")
    url = run.pipeline.services.settings.redis_url.get_secret_value()
    with Connection(url, transport=broker.Transport) as connection:
        run.client.lpush("stray", f'{{"lastName": "{MARK}"}}', MARK)
        with Consumer(connection, [queue], callbacks=[], accept=["json"]):
            while run.client.llen("stray"):
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.3)
    broker.install()
    assert run.client.llen("er:malformed") == 3


SCENARIOS: list[Callable[[Run], None]] = [succeed, other_sources, not_understood, held, rhythm_refuses, bugs]
#: What the scenarios must have met; or marks that are not found prove nothing.
MET = {
    ("synced", "written"), ("synced", "unchanged"), ("duplicate", None), ("dead", "invalid_json"),
    ("dead", "invalid_payload"), ("held", "unknown_exam"), ("held", "result_unscored"), ("held", "integrity_review"),
    ("held", "result_ancient"), ("held", "result_conflict"), ("held", "registration_ambiguous"),
    ("held", "registration_mismatch"), ("held", "registration_settled"), ("held", "registration_edited"),
    ("ready", "registration_locked"), ("ready", "registration_not_found"), ("ready", "rhythm_unavailable"),
    ("ready", "rhythm_throttled"), ("ready", "credentials_refused"), ("dead", "rhythm_rejected"),
    ("dead", "missing_reference"), ("held", "rhythm_altered"), ("ready", "internal_error"),
}  # fmt: skip


def dump(client: "redis.Redis") -> Stored:
    """Every key with all that it holds, as commands give it and as DUMP does, the key's name included."""
    found: Stored = {}
    reads: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda name: client.lrange(name, 0, -1),
        b"set": client.smembers,
        b"zset": lambda name: client.zrange(name, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    for name in client.scan_iter(count=1000):
        parts = list(_flat(reads[client.type(name)](name)))
        found[text(name)] = [name, *parts, client.dump(name) or b"", *(one for part in parts for one in unpacked(part))]
    return found


def unpacked(part: bytes) -> Iterator[bytes]:
    """What any zstd frame in it holds: compressed is not encrypted, though it hides a mark just as well."""
    at = part.find(zstandard.FRAME_HEADER)
    while at >= 0:
        with suppress(zstandard.ZstdError):
            yield zstandard.ZstdDecompressor().decompressobj().decompress(part[at:])
        at = part.find(zstandard.FRAME_HEADER, at + 1)


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple | set):
        for one in value:
            yield from _flat(one)
    else:
        yield value if isinstance(value, bytes) else str(value).encode()


def spellings(what: str) -> list[bytes]:
    """As it is, in hex, and the three ways in which base64 may show it."""
    raw = what.encode()
    turned = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)] if len(raw) > 8 else []
    return [raw, raw.hex().encode(), *turned]


def having(stored: Stored, *marks: str) -> set[str]:
    wanted = [spelling for mark in marks for spelling in spellings(mark)]
    return {name for name, parts in stored.items() if any(shows(part, wanted) for part in parts)}


def shows(part: bytes, wanted: list[bytes]) -> bool:
    """Whether any of these is in it, however its letters are written."""
    return any(one in part or one in part.lower() for one in wanted)


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


def test_without_keys_marks_are_in_payloads_outcomes_and_strays_only(
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
    assert of_events(found) == {"payload", "outcome"}


def test_real_processes_seal_from_the_door_to_rhythm(rhythm: Sandbox, tmp_path: Path) -> None:
    rhythm.seed(ORG, [theirs(1), theirs(2, status="failed")])
    with stack_at(tmp_path, rhythm, EXAMRELAY_PAYLOAD_KEYS=keyed(ONE)) as stack:
        stack.start("web", "worker", "sweeper", "beat")
        stack.deliver([marked(1), marked(2), f"{MARK} is no JSON".encode()])
        stack.synced(1)
        wait_until(lambda: (stack.counts().get("held"), stack.counts().get("dead")) == (1, 1), 20, "one held, one dead")
        stored = dump(stack.client)
        assert having(stored, MARK, str(SCORE), VERDICT) == set()
        assert {parts[1][:1] for name, parts in stored.items() if ":payload:" in name} == {SEALED}
        for name in ("web", "worker", "sweeper", "beat"):
            assert MARK.encode() not in stack.log(name).read_bytes().lower()
    assert rhythm.record(ORG, "reg-1")["registration"]["score"] == SCORE


def payloads(client: "redis.Redis") -> list[str]:
    return [text(name).rpartition(":")[2] for name in client.keys(f"er:{TENANT}:payload:*")]


@pytest.fixture
def under(
    client: "redis.Redis", rhythm: Sandbox, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Pipeline]]:
    """Makes pipelines on one ledger, each with keys of its own, as processes have them while keys are changed."""
    monkeypatch.setenv("EXAMRELAY_INDEX_KEY", keyed(ONE))
    opened: list[Any] = []

    def make(*keys: bytes) -> Pipeline:
        monkeypatch.setenv("EXAMRELAY_PAYLOAD_KEYS", keyed(*keys))
        opened.append(pipeline_at(tmp_path_factory.mktemp("keys"), rhythm))
        made: Pipeline = opened[-1].__enter__()
        return made

    yield make
    for one in opened:
        one.__exit__(None, None, None)


Under = Callable[..., Pipeline]
MISSING = f"sealed under key {key_id(ONE).hex()}, which EXAMRELAY_PAYLOAD_KEYS does not hold: add it again"


def waits_for_its_key(event: Event, state: EventState) -> None:
    assert (event.state, event.reason, event.detail) == (state, Reason.INTERNAL_ERROR, MISSING)
    assert event.attempts == 0, "nobody's failure"
    assert event.due_at is not None


def test_a_payload_whose_key_is_missing_waits_alone_until_it_is_back(under: Under) -> None:
    before, after, both = under(ONE), under(OTHER), under(OTHER, ONE)
    before.rhythm.seed(ORG, [theirs(1), theirs(2)])
    waiting, passing = before.deliver(marked(1)), after.deliver(marked(2))
    after.process()
    after.sync()
    waits_for_its_key(after.event(waiting), EventState.RECEIVED)
    assert after.event(passing).state is EventState.SYNCED
    both.due_now()
    both.process()
    both.sync()
    assert both.event(waiting).state is EventState.SYNCED


def test_an_outcome_whose_key_is_missing_waits_alone_until_it_is_back(under: Under) -> None:
    before, after, both = under(ONE), under(OTHER), under(OTHER, ONE)
    before.rhythm.seed(ORG, [theirs(1), theirs(2)])
    waiting = before.deliver(marked(1))
    before.process()
    passing = after.deliver(marked(2))
    after.process()
    after.sync()
    waits_for_its_key(after.event(waiting), EventState.READY)
    assert after.event(passing).state is EventState.SYNCED
    both.due_now()
    both.sync()
    assert both.event(waiting).state is EventState.SYNCED


def test_an_intent_whose_key_is_missing_is_kept_and_settled_by_reading_when_it_is_back(under: Under) -> None:
    before, after, both = under(ONE), under(OTHER), under(OTHER, ONE)
    before.rhythm.seed(ORG, [theirs(1)])
    before.rhythm.fault("apply_then_lose", kind="patch")
    (event,) = before.run(marked(1))
    assert event.state is EventState.READY
    client = before.services.redis
    outcome = f"er:{TENANT}:outcome:{event.id}"
    opened = before.ledger.sealer.open(client.get(outcome) or b"", event.id)
    client.set(outcome, after.ledger.sealer.seal(opened, event.id))
    client.delete(f"er:{TENANT}:gate")
    after.due_now()
    after.sync()
    found = after.event(event.id)
    assert (found.state, found.reason, found.detail) == (EventState.READY, Reason.INTERNAL_ERROR, MISSING)
    assert client.hexists(f"er:{TENANT}:event:{event.id}", "intent")
    both.due_now()
    both.sync()
    found = both.event(event.id)
    assert (found.state, found.result) == (EventState.SYNCED, "written")
    assert len(both.rhythm.history(ORG, "reg-1")) == 1


def test_a_rescore_waits_where_what_was_written_before_cannot_be_opened(under: Under) -> None:
    before, after, both = under(ONE), under(OTHER), under(OTHER, ONE)
    before.rhythm.seed(ORG, [theirs(1), theirs(2)])
    before.run(marked(1))
    rescore, passing = after.run(marked(1, score=SCORE + 1, rescore=True), marked(2))
    waits_for_its_key(rescore, EventState.READY)
    assert passing.state is EventState.SYNCED
    both.due_now()
    both.sync()
    assert both.event(rescore.id).state is EventState.SYNCED


def test_an_answer_whose_key_is_missing_is_not_taken_for_none(under: Under) -> None:
    before, after, both = under(ONE), under(OTHER), under(OTHER, ONE)
    before.rhythm.seed(ORG, [theirs(1)])
    (event,) = after.run(marked(1, passed=None))
    assert event.reason is Reason.RESULT_UNSCORED
    before.ledger.replay(TENANT, event.id, "op", {"verdict": "passed"})
    after.process()
    waits_for_its_key(after.event(event.id), EventState.RECEIVED)
    both.due_now()
    both.process()
    both.sync()
    assert both.event(event.id).state is EventState.SYNCED
    assert both.registration()["status"] == "passed"


def test_keys_are_changed_by_adding_the_new_one_last_then_first_then_dropping_the_old(under: Under) -> None:
    steps = [under(ONE), under(ONE, OTHER), under(OTHER, ONE), under(OTHER)]
    steps[0].rhythm.seed(ORG, [theirs(number) for number in range(len(steps))])
    ids = []
    for number, step in enumerate(steps[:-1]):
        ids.append(step.deliver(marked(number)))
        steps[number].process()
        steps[number + 1].sync()
    assert [steps[-1].event(id).state for id in ids] == [EventState.SYNCED] * 3
    (last,) = steps[-1].run(marked(3))
    assert last.state is EventState.SYNCED


def test_what_is_stored_without_keys_is_read_when_there_are_some_and_they_seal_from_then_on(under: Under) -> None:
    plain, keys = under(), under(ONE)
    plain.rhythm.seed(ORG, [theirs(1)])
    (event,) = plain.run(marked(1))
    (rescore,) = keys.run(marked(1, score=SCORE + 1, rescore=True))
    assert (event.state, rescore.state) == (EventState.SYNCED, EventState.SYNCED)
    assert MARK.encode() in (keys.ledger.payload(TENANT, event.id) or b"")


def test_a_damaged_payload_is_a_bug_of_that_event_alone(under: Under) -> None:
    pipeline = under(ONE)
    pipeline.rhythm.seed(ORG, [theirs(1), theirs(2)])
    damaged, swapped, whole = (pipeline.deliver(marked(number)) for number in (1, 3, 2))
    client = pipeline.services.redis
    client.setrange(f"er:{TENANT}:payload:{damaged}", 40, b"\x00\x00\x00\x00")
    client.copy(f"er:{TENANT}:payload:{whole}", f"er:{TENANT}:payload:{swapped}", replace=True)
    pipeline.process()
    pipeline.sync()
    for id in (damaged, swapped):
        event = pipeline.event(id)
        assert (event.state, event.reason, event.detail) == (
            EventState.RECEIVED, Reason.INTERNAL_ERROR, "SealBroken",
        )  # fmt: skip
        assert event.attempts == 1
    assert pipeline.event(whole).state is EventState.SYNCED


def test_a_newer_form_is_left_alone(under: Under) -> None:
    pipeline = under(ONE)
    id = pipeline.deliver(marked(1))
    pipeline.services.redis.set(f"er:{TENANT}:payload:{id}", b"\x09newer")
    pipeline.process()
    event = pipeline.event(id)
    assert (event.state, event.detail) == (
        EventState.RECEIVED, "stored form 09 is not known to this version of examrelay",
    )  # fmt: skip
    assert event.attempts == 0


def test_the_finder_finds(client: "redis.Redis") -> None:
    """Or the tests above prove nothing."""
    encoded = base64.b64encode(f"..{MARK}..".encode())
    for name, put in {
        "string": lambda: client.set("string", f"x{MARK}y"), "hash": lambda: client.hset("hash", "field", MARK.upper()),
        "field": lambda: client.hset("field", MARK, "x"), "list": lambda: client.rpush("list", "a", MARK),
        "set": lambda: client.sadd("set", MARK), "zset": lambda: client.zadd("zset", {MARK: 1}),
        "base64": lambda: client.set("base64", encoded), "hex": lambda: client.set("hex", MARK.encode().hex()),
        f"name:{MARK}": lambda: client.set(f"name:{MARK}", "x"),
    }.items():  # fmt: skip
        put()
        assert name in having(dump(client), MARK)
    client.set("plain", Sealer().seal(f"{MARK} {os.urandom(8).hex()}".encode(), "x"))
    client.set("sealed", Sealer([ONE]).seal(MARK.encode(), "x"))
    found = having(dump(client), MARK)
    assert "plain" in found
    assert "sealed" not in found
