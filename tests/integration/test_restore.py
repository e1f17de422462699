"""A backup made as docs/operations.md says, from a running Valkey, and what happens after it is restored."""

import shutil
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from tasks.operator.read_back import Auditor
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import Valkey, wait_until
from tests.stages import ORIGINAL, RESCORE, SUPERSEDED, UNCHANGED, scores, stands
from worker.ledger.audit.books import books


def backed_up(valkey: Valkey, to: Path) -> None:
    """The page's steps."""
    with redis.Redis.from_url(valkey.url) as client:
        client.config_set("auto-aof-rewrite-percentage", 0)
        wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], 10, "no rewrite")
        shutil.copytree(valkey.folder / "appendonlydir", to)
        client.config_set("auto-aof-rewrite-percentage", 100)


def restored(valkey: Valkey, backup: Path) -> None:
    valkey.stop()
    shutil.rmtree(valkey.folder / "appendonlydir")
    shutil.copytree(backup, valkey.folder / "appendonlydir")
    valkey.start()


def test_after_a_restore_nothing_is_written_or_sent_twice(
    rhythm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey = Valkey().start()
    monkeypatch.setenv("REDIS_URL", valkey.url)
    try:
        with pipeline_at(tmp_path, rhythm) as pipeline:
            _lose_what_came_since(pipeline, valkey, tmp_path / "backup")
    finally:
        valkey.close()


def _lose_what_came_since(pipeline: Pipeline, valkey: Valkey, backup: Path) -> None:
    pipeline.rhythm.seed(ORG, [registration("reg-1"), registration("reg-2")])
    waiting = pipeline.deliver(certiverse("dlv-1", "reg-1"))
    backed_up(valkey, backup)
    pipeline.process()
    pipeline.sync()
    since = certiverse("dlv-2", "reg-2")
    pipeline.run(since)
    before = [pipeline.registration("reg-1"), pipeline.registration("reg-2")]
    restored(valkey, backup)
    wait_until(pipeline.services.redis.ping, 10, "Redis")
    assert pipeline.event(waiting).state is EventState.RECEIVED
    assert books(pipeline.services.redis, TENANT).differences == ()
    pipeline.process()
    pipeline.sync()
    assert (pipeline.event(waiting).state, pipeline.event(waiting).result) == (EventState.SYNCED, "unchanged")
    assert books(pipeline.services.redis, TENANT).accepted == 1, "what came since is not recorded ..."
    (again,) = pipeline.run(since)
    assert (again.state, again.result) == (EventState.SYNCED, "unchanged"), "... until its platform sends it again"
    assert [pipeline.registration("reg-1"), pipeline.registration("reg-2")] == before
    assert all(len(pipeline.rhythm.record(ORG, id)["letters"]) == 1 for id in ("reg-1", "reg-2"))


def test_a_rescore_after_the_backup_shows_in_the_audit_until_it_is_sent_again(
    rhythm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey = Valkey().start()
    monkeypatch.setenv("REDIS_URL", valkey.url)
    try:
        with pipeline_at(tmp_path, rhythm) as pipeline:
            rhythm.seed(ORG, [registration()])
            pipeline.run(ORIGINAL)
            backed_up(valkey, tmp_path / "backup")
            pipeline.run(RESCORE)
            restored(valkey, tmp_path / "backup")
            wait_until(pipeline.services.redis.ping, 10, "Redis")
            assert _differing(pipeline) == [("rhythm", "reg-1")]
            (again,) = pipeline.run(RESCORE)
            assert stands(again) == UNCHANGED
            assert _differing(pipeline) == []
            assert scores(pipeline) == [60, 82.5], "nothing was written after the restore"
    finally:
        valkey.close()


def _differing(pipeline: Pipeline) -> list[tuple[str, str]]:
    found = Auditor(pipeline.services, TENANT, 10_000).read_back().differences
    return [(one.kind, one.registration or "") for one in found]


def test_after_the_loss_of_redis_what_the_platforms_send_again_writes_nothing_and_goes_not_backwards(
    open_one: Pipeline,
) -> None:
    """Without any backup. Each ledger begins empty; Rhythm has the rescore."""
    open_one.run(ORIGINAL)
    open_one.run(RESCORE)
    open_one.services.redis.flushall()
    (rescore,) = open_one.run(RESCORE)
    (original,) = open_one.run(ORIGINAL)
    assert (stands(rescore), stands(original)) == (UNCHANGED, SUPERSEDED)

    open_one.services.redis.flushall()
    (original,) = open_one.run(ORIGINAL)
    (rescore,) = open_one.run(RESCORE)
    assert (original.state, original.reason) == (EventState.HELD, Reason.REGISTRATION_SETTLED), "a person decides"
    assert stands(rescore) == UNCHANGED
    assert scores(open_one) == [60, 82.5]
