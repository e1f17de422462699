"""A backup made as docs/operations.md says, from a running Valkey, and what happens after it is restored."""

import shutil
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import EventState
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import Valkey, wait_until
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
