"""The audit finds what is wrong in a ledger or in Rhythm, and reports nothing false while work goes on.

With EXAMRELAY_FULL=1: 200 corruptions and 100 clean runs; else fewer of both.
"""

import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from sandbox.control import Sandbox
from schemas.event import EventState
from tasks.operator import read_back
from tasks.operator.read_back import Auditor, ReadBack
from tasks.steps.reading import ReadingStopped
from tests.events import certiverse, registration
from tests.integration.corruptions import CORRUPTIONS, Corruption, Ground, delete_from_rhythm, grow_old
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import wait_until
from worker.cli.app import app
from worker.errors import ConfigurationError
from worker.ledger.audit import marks
from worker.ledger.audit.books import Books, books
from worker.ledger.audit.events import Difference

FULL = os.environ.get("EXAMRELAY_FULL") == "1"
SEEDS = range(200) if FULL else range(len(CORRUPTIONS))
CLEAN_RUNS = 100 if FULL else 5
FAST = 10_000.0


def audited(pipeline: Pipeline) -> tuple[Books, ReadBack]:
    """Both parts of an audit (ledger, Rhythm), as the command runs them, without waiting for a pace."""
    at = pipeline.services
    return books(at.redis, TENANT, at.ledger.sealer), Auditor(at, TENANT, FAST).read_back()


def differences(pipeline: Pipeline) -> list[Difference]:
    kept, read = audited(pipeline)
    return [*kept.differences, *read.differences]


def person(number: int) -> dict[str, str]:
    return {"student": f"stu-{number}", "email": f"p{number}@example.org", "candidateId": f"c-{number}"}


def seed(rhythm: Sandbox, numbers: range) -> None:
    rhythm.seed(
        ORG,
        [
            registration(f"reg-{number}", student_id=f"stu-{number}", email_address=f"p{number}@example.org")
            for number in numbers
        ],
    )


def sitting(number: int, **more: object) -> bytes:
    told = {**person(number), **more}
    return certiverse(f"dlv-{number}", f"reg-{number}", **told)  # type: ignore[arg-type]


def populate(pipeline: Pipeline) -> None:
    """Events in every state, one that was pruned, and one whose write has lost its reply and is not settled yet."""
    seed(pipeline.rhythm, range(30))
    pruned = pipeline.run(sitting(29))[0]
    client = pipeline.services.redis
    grow_old(client, pruned.id)
    assert pipeline.ledger.sweep(TENANT, timedelta(seconds=5), 10)[1] == 1
    pipeline.run(*(sitting(number) for number in range(8)))
    copies = [json.dumps(json.loads(sitting(number)), indent=1).encode() for number in range(3)]
    pipeline.run(*copies, sitting(0, score=60, rescore=True), sitting(1, passed=None, status="x"), b"{}", b"[", b"{")
    held = pipeline.run(*(sitting(number, exam="CERT-9") for number in range(10, 14)))
    pipeline.run(sitting(14, score=50), sitting(14, score=55), sitting(15, rescore=True), sitting(15, score=1))
    assert pipeline.ledger.discard(TENANT, held[0].id, "op", "test")[0]
    pipeline.rhythm.fault("apply_then_lose", kind="patch")
    pipeline.run(sitting(16))
    pipeline.deliver(sitting(17))
    pipeline.process()
    pipeline.deliver(sitting(18))
    pipeline.deliver(sitting(19))
    states = {pipeline.event(id).state for id in (one.decode() for one in client.zrange(f"er:{TENANT}:events", 0, -1))}
    assert states >= set(EventState) - {EventState.IGNORED}


@contextmanager
def kept(client: "redis.Redis", rhythm: Sandbox) -> Iterator[None]:
    """Restores Redis and the stand-in afterwards."""
    dumped = {name: (client.pttl(name), client.dump(name)) for name in client.keys("*")}
    records = list(rhythm.registrations(ORG).values())
    try:
        yield
    finally:
        client.flushall()
        pipeline = client.pipeline(transaction=False)
        for name, (ttl, content) in dumped.items():
            pipeline.restore(name, max(0, int(ttl)), content or b"")  # type: ignore[arg-type]
        pipeline.execute()
        rhythm.seed(ORG, records)


@pytest.fixture
def populated(pipeline: Pipeline) -> Pipeline:
    populate(pipeline)
    return pipeline


def test_a_ledger_with_something_of_everything_holds(populated: Pipeline) -> None:
    found, read = audited(populated)
    assert (found.differences, read.differences, read.busy) == ((), [], [])
    assert found.accepted == found.accounted + found.pruned == 29
    assert read.registrations == 9


@pytest.mark.timeout(900)
def test_every_corruption_is_found(populated: Pipeline, client: "redis.Redis") -> None:
    missed = []
    for number in SEEDS:
        corrupt: Corruption = CORRUPTIONS[number % len(CORRUPTIONS)]
        with kept(client, populated.rhythm):
            kinds = corrupt(Ground(client, populated.rhythm, number))
            found = differences(populated)
            if not {one.kind for one in found} & set(kinds):
                missed.append((number, corrupt.__name__, kinds, found))
    assert not missed
    assert differences(populated) == []


class Load:
    """Workers, an operator, a sweeper and a platform at work in threads, each with connections of its own."""

    def __init__(self, folder: Path, rhythm: Sandbox, workers: int = 3) -> None:
        self._folder, self._rhythm, self._workers = folder, rhythm, workers
        self._stop = threading.Event()
        self.failures: list[BaseException] = []
        self.delivered = 0

    @contextmanager
    def running(self) -> Iterator["Load"]:
        jobs = [self._platform, self._operator, *[self._worker] * self._workers]
        threads = [threading.Thread(target=self._run, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(30)
        assert self.failures == []

    def _run(self, job: object) -> None:
        folder = self._folder / f"thread-{threading.get_ident()}"
        folder.mkdir()
        try:
            with Sandbox(self._rhythm.url) as rhythm, pipeline_at(folder, rhythm, lease_seconds=1) as pipeline:
                job(pipeline)  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001  # told by the test
            self.failures.append(error)

    def _platform(self, pipeline: Pipeline) -> None:
        chance = random.Random(1)
        while not self._stop.wait(0.01):
            self.delivered += 1
            number = 100 + chance.randrange(400)
            kind = chance.random()
            body = sitting(number, score=chance.choice([60, 70, 80]), rescore=kind < 0.4)
            if kind > 0.9:
                body = chance.choice([b"{}", body + b" " * chance.randrange(9), sitting(number, exam="CERT-9")])
            pipeline.deliver(body)
            if self.delivered % 40 == 0:
                pipeline.rhythm.fault("apply_then_lose", kind=["patch", "batch"])

    def _worker(self, pipeline: Pipeline) -> None:
        while not self._stop.wait(0.005):
            pipeline.sync()

    def _operator(self, pipeline: Pipeline) -> None:
        """Replays and discards what stopped, forgets some, and prunes what it has made old."""
        chance = random.Random(2)
        while not self._stop.wait(0.05):
            pipeline.ledger.sweep(TENANT, timedelta(seconds=5), 10)
            for state in ("held", "dead"):
                stopped = pipeline.services.redis.zrange(f"er:{TENANT}:{state}", 0, 20)
                if not stopped:
                    continue
                id = chance.choice(stopped).decode()
                if chance.random() < 0.5:
                    pipeline.ledger.replay(TENANT, id, "op", {})
                elif chance.random() < 0.9:
                    pipeline.ledger.discard(TENANT, id, "op", "test")
                else:
                    pipeline.ledger.forget(TENANT, id, "op")


@pytest.mark.timeout(1500)
def test_nothing_is_invented_while_work_goes_on(pipeline: Pipeline, tmp_path: Path) -> None:
    seed(pipeline.rhythm, range(100, 500))
    with Load(tmp_path, pipeline.rhythm).running() as load:
        wait_until(lambda: load.delivered > 150 and pipeline.services.redis.exists(f"er:{TENANT}:held"), 60)
        for run in range(CLEAN_RUNS):
            before = load.delivered
            found, read = audited(pipeline)
            assert (found.differences, read.differences) == ((), []), f"run {run}"
            wait_until(lambda before=before: load.delivered > before + 5)
    print(f"{CLEAN_RUNS} clean runs, {load.delivered} deliveries, {found.accepted} events, {read.registrations} read")


def test_an_edit_in_rhythm_is_told_with_who_likely_made_it_and_when(pipeline: Pipeline) -> None:
    seed(pipeline.rhythm, range(3))
    pipeline.run(*(sitting(number) for number in range(3)))
    pipeline.rhythm.edit(ORG, "reg-1", status="failed", sys_last_modified_by_id="user-7")
    (found,) = differences(pipeline)
    assert (found.kind, found.id, found.registration, found.expected) == ("rhythm", "reg-1", "reg-1", "status passed")
    stamp = pipeline.registration("reg-1")
    who, at = stamp["sys_last_modified_by_id"], stamp["sys_last_modified_at"]
    assert found.found == f"status failed; last changed by {who} at {at}"


def test_a_stale_search_is_no_difference(pipeline: Pipeline) -> None:
    seed(pipeline.rhythm, range(2))
    pipeline.run(sitting(0), sitting(1))
    pipeline.rhythm.fault("stale", ids=["reg-0", "reg-1"], times=None)
    assert differences(pipeline) == []
    assert pipeline.rhythm.counts()["by_kind"]["GET get"] == 2, "read again, consistently"


def test_a_registration_that_is_being_written_is_not_judged(pipeline: Pipeline, client: "redis.Redis") -> None:
    seed(pipeline.rhythm, range(1))
    pipeline.run(sitting(0))
    pipeline.rhythm.fault("apply_then_lose", kind="patch")
    (waits,) = pipeline.run(sitting(0, score=60, rescore=True))
    assert waits.state == EventState.READY
    read = Auditor(pipeline.services, TENANT, FAST).read_back()
    assert (read.differences, read.busy) == ([], ["reg-0"])
    pipeline.due_now()
    pipeline.sync()
    assert differences(pipeline) == []


def test_reading_back_takes_a_hundred_a_call_and_a_fifth_of_the_pace(
    client: "redis.Redis", rhythm: Sandbox, tmp_path: Path
) -> None:
    with pipeline_at(tmp_path, rhythm) as unpaced:
        seed(rhythm, range(250))
        unpaced.run(*(sitting(number) for number in range(250)))
        while unpaced.services.redis.hget(f"er:{TENANT}:counts", "synced") != b"250":
            unpaced.process()
            unpaced.sync()
    with pipeline_at(tmp_path, rhythm, rhythm="calls_per_second = 25") as paced:
        before = rhythm.requests()[-1]["n"]
        assert Auditor(paced.services, TENANT).read_back().registrations == 250
        calls = rhythm.requests(before)
    assert [call["kind"] for call in calls] == ["search"] * 3
    assert calls[2]["at"] - calls[0]["at"] >= 2 * 5 / 25 - 0.05


def test_an_interrupted_audit_goes_on_where_it_was_and_remembers_what_it_had_found(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(pipeline.rhythm, range(350))
    pipeline.run(*(sitting(number) for number in range(350)))
    while pipeline.services.redis.hget(f"er:{TENANT}:counts", "synced") != b"350":
        pipeline.process()
        pipeline.sync()
    first = pipeline.services.redis.zrange(f"er:{TENANT}:events", 0, 0)[0].decode()
    edited = str(pipeline.event(first).registration)
    pipeline.rhythm.edit(ORG, edited, status="failed")
    pipeline.rhythm.fault("status", kind="search", status=429, headers={"Retry-After": "3600"}, skip=2)
    auditor = Auditor(pipeline.services, TENANT, FAST)
    with pytest.raises(ReadingStopped):
        auditor.read_back()
    assert marks.load(pipeline.services.redis, TENANT).walked == 200
    pipeline.services.redis.delete(f"er:{TENANT}:gate")
    read = auditor.read_back()
    assert (read.registrations, [one.id for one in read.differences]) == (150, [edited])
    assert auditor.read_back().registrations == 350, "an audit that ended begins anew"
    marks.save(pipeline.services.redis, TENANT, marks.Mark(9e15, 1, 1))
    assert auditor.read_back(restart=True).registrations == 350


def test_a_gate_that_opens_soon_is_waited_for(pipeline: Pipeline) -> None:
    seed(pipeline.rhythm, range(2))
    pipeline.run(sitting(0), sitting(1))
    pipeline.rhythm.fault("status", kind=["search", "get"], status=429, headers={"Retry-After": "1"})
    assert Auditor(pipeline.services, TENANT, FAST).read_back().registrations == 2


def test_an_accepted_override_holds_and_a_later_result_still_waits_for_a_person(pipeline: Pipeline) -> None:
    seed(pipeline.rhythm, range(1))
    (event,) = pipeline.run(sitting(0))
    auditor = Auditor(pipeline.services, TENANT, FAST)
    assert auditor.accept("reg-0", "op") == "holds"
    pipeline.rhythm.edit(ORG, "reg-0", status="failed", score=None)
    assert len(differences(pipeline)) == 1
    assert auditor.accept("reg-0", "op") == "accepted"
    assert differences(pipeline) == []
    assert [(entry.move, entry.by) for entry in pipeline.event(event.id).history][-1] == ("accept", "op")
    (rescored,) = pipeline.run(sitting(0, score=60, rescore=True))
    assert rescored.reason == "registration_edited", "the person's edit is not lost to a rescore"
    pipeline.rhythm.edit(ORG, "reg-0", status="passed", score=1)
    assert [one.kind for one in differences(pipeline)] == ["rhythm"], "what was accepted is not what is there now"
    assert pipeline.ledger.replay(TENANT, rescored.id, "op", {"accept": ["registration_edited"]})[0]
    pipeline.process()
    pipeline.sync()
    assert pipeline.event(rescored.id).result == "written"
    assert differences(pipeline) == [], "what is written anew is what counts"


def test_an_accepted_deletion_holds(pipeline: Pipeline, client: "redis.Redis") -> None:
    seed(pipeline.rhythm, range(2))
    pipeline.run(sitting(0))
    delete_from_rhythm(Ground(client, pipeline.rhythm, 0))
    assert [one.found for one in differences(pipeline)] == ["no such registration"]
    assert Auditor(pipeline.services, TENANT, FAST).accept("reg-0", "op") == "accepted"
    assert differences(pipeline) == []


def test_an_override_is_not_accepted_while_something_is_written_there(pipeline: Pipeline) -> None:
    seed(pipeline.rhythm, range(1))
    pipeline.run(sitting(0))
    pipeline.rhythm.fault("apply_then_lose", kind="patch")
    pipeline.run(sitting(0, score=60, rescore=True))
    assert Auditor(pipeline.services, TENANT, FAST).accept("reg-0", "op") == "busy"


def test_a_result_that_a_person_has_entered_already_becomes_what_we_expect(pipeline: Pipeline) -> None:
    """`unchanged`, by the delivery that wrote before: from then on the audit expects these values."""
    seed(pipeline.rhythm, range(1))
    pipeline.run(sitting(0))
    pipeline.rhythm.edit(ORG, "reg-0", score=60)
    (rescored,) = pipeline.run(sitting(0, score=60, rescore=True))
    assert rescored.result == "unchanged"
    assert differences(pipeline) == []


@pytest.mark.timeout(1500)
def test_a_large_ledger_is_audited_page_by_page(pipeline: Pipeline, client: "redis.Redis") -> None:
    """No command takes long enough to be noticed by others. A million events with EXAMRELAY_FULL=1."""
    from bench.ledger import load  # what only this test needs

    load(client, pipeline.services.identity, TENANT, 1_000_000 if FULL else 5_000)
    client.config_set("slowlog-log-slower-than", 20_000)
    client.slowlog_reset()
    assert books(client, TENANT).differences == ()
    assert [entry["command"][:80] for entry in client.slowlog_get(5)] == []


def test_audit_is_a_pure_reader_of_rhythm(pipeline: Pipeline) -> None:
    seed(pipeline.rhythm, range(3))
    pipeline.run(*(sitting(number) for number in range(3)))
    pipeline.rhythm.edit(ORG, "reg-1", status="failed")
    before = pipeline.rhythm.counts()["writes"]
    differences(pipeline)
    assert pipeline.rhythm.counts()["writes"] == before
    assert read_back.SHARE == 5


@pytest.fixture
def command(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """The command, on the pipeline's ledger: exit code and standard output."""
    monkeypatch.setenv("EXAMRELAY_CONFIG", str(pipeline.services.settings.config))
    monkeypatch.setenv("EXAMRELAY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("USER", "op")

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, arguments)
        return done.exit_code, done.stdout

    return run


def test_the_command_says_by_its_exit_code_whether_it_holds(
    pipeline: Pipeline, command: Callable[..., tuple[int, str]]
) -> None:
    seed(pipeline.rhythm, range(2))
    pipeline.run(sitting(0), sitting(1))
    code, shown = command("audit", "--json")
    assert (code, json.loads(shown)) == (0, {"accepted": 2, "accounted": 2, "pruned": 0, "differences": []})
    pipeline.rhythm.edit(ORG, "reg-1", status="failed")
    code, shown = command("audit", "--json", "--tenant", TENANT)
    (told,) = json.loads(shown)["differences"]
    assert (code, told["kind"], told["registration"], told["tenant"]) == (1, "rhythm", "reg-1", TENANT)
    assert command("audit", "--ledger-only")[0] == 0
    assert command("audit", "--accept", "reg-1")[0] == 0
    assert command("audit")[0] == 0


def test_an_audit_that_cannot_read_rhythm_says_so(pipeline: Pipeline, command: Callable[..., tuple[int, str]]) -> None:
    seed(pipeline.rhythm, range(1))
    pipeline.run(sitting(0))
    pipeline.rhythm.fault("status", status=429, headers={"Retry-After": "3600"}, times=None)
    code, shown = command("audit", "--json")
    assert (code, json.loads(shown)["differences"]) == (3, [])


def test_only_what_was_written_can_be_accepted(pipeline: Pipeline, command: Callable[..., tuple[int, str]]) -> None:
    with pytest.raises(ConfigurationError, match="nothing was ever written to registration reg-7"):
        CliRunner().invoke(app, ["audit", "--accept", "reg-7"], catch_exceptions=False)


def test_the_commands_find_a_candidate_and_forget_it(
    pipeline: Pipeline, command: Callable[..., tuple[int, str]]
) -> None:
    seed(pipeline.rhythm, range(1))
    (event,) = pipeline.run(sitting(0))
    for question in (("--candidate", "p0@example.org"), ("--registration", "reg-0"), ("--event", event.id)):
        code, shown = command("trace", *question, "--json")
        told = json.loads(shown)
        assert (code, [one["id"] for one in told["events"]]) == (0, [event.id])
        assert [(one["id"], one["event"]) for one in told["registrations"]] == [("reg-0", event.id)]
        assert command("trace", *question)[0] == 0
    assert command("trace", "--candidate", "nobody")[0] == 1
    with pytest.raises(ConfigurationError, match="add --yes"):
        CliRunner().invoke(app, ["forget", "--candidate", "stu-0"], catch_exceptions=False)
    assert pipeline.ledger.payload(TENANT, event.id) is not None
    code, shown = command("forget", "--candidate", "stu-0", "--yes")
    assert (code, shown) == (0, "1 event to forget\n1 forgotten\n")
    assert command("trace", "--candidate", "stu-0")[0] == 1
    assert command("audit")[0] == 0
