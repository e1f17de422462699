"""Payload keys change: an event whose data cannot be decrypted waits unchanged until its key is back; others go on."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import Event, EventState, Reason
from tests.marked import MARK, ONE, OTHER, SCORE, keyed, marked, theirs
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import ROOT, Valkey
from tests.tenants import ENVIRON
from worker.ledger.sealed import key_id


@pytest.fixture
def under(
    client: "redis.Redis", rhythm: Sandbox, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Pipeline]]:
    """Makes pipelines on one ledger with different keys, like processes while keys are being changed."""
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


def test_what_is_ready_and_whose_key_is_missing_waits_alone_until_it_is_back(under: Under) -> None:
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
    payload = f"er:{TENANT}:payload:{event.id}"
    opened = before.ledger.sealer.open(client.get(payload) or b"", event.id)
    client.set(payload, after.ledger.sealer.seal(opened, event.id))
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


def test_an_operators_answer_whose_key_is_missing_is_not_ignored(under: Under) -> None:
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
            EventState.RECEIVED,
            Reason.INTERNAL_ERROR,
            "SealBroken",
        )
        assert event.attempts == 1
    assert pipeline.event(whole).state is EventState.SYNCED


def test_a_newer_form_is_left_alone(under: Under) -> None:
    pipeline = under(ONE)
    id = pipeline.deliver(marked(1))
    pipeline.services.redis.set(f"er:{TENANT}:payload:{id}", b"\x09newer")
    pipeline.process()
    event = pipeline.event(id)
    assert (event.state, event.detail) == (
        EventState.RECEIVED,
        "stored form 09 is not known to this version of examrelay",
    )
    assert event.attempts == 0


def test_a_command_says_which_key_it_lacks(under: Under, valkey: Valkey) -> None:
    before = under(ONE)
    id = before.deliver(marked(1))
    environ = ENVIRON | {"REDIS_URL": valkey.url, "EXAMRELAY_CONFIG": str(before.services.settings.config)}
    environ |= {"EXAMRELAY_INDEX_KEY": keyed(ONE), "EXAMRELAY_PAYLOAD_KEYS": keyed(OTHER)}
    ended = subprocess.run(
        [sys.executable, "-m", "worker", "plan", "--id", id],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 3
    assert ended.stderr == f"examrelay: stored data cannot be decrypted: {MISSING}\n"
