"""`examrelay check` with and without `--live`: its findings, what it leaves unchanged, and its exit code."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sandbox.control import Sandbox
from schemas.event import Reason
from tests.commands import command
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from worker.health import readiness
from worker.ledger.processes import Presence, Process
from worker.receiver.figures import metrics

Check = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def check(pipeline: Pipeline) -> Check:
    """Run it. Returns the exit code and the findings by their subject."""

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        done = command(pipeline.services.settings.config, "check", "--json", *arguments)
        told = json.loads(done.stdout)
        assert told["holds"] is (done.returncode == 0)
        return done.returncode, {one["check"]: one for one in told["checks"]}

    return run


def swept(pipeline: Pipeline) -> None:
    """As if a sweep ran a moment ago and a worker were running."""
    pipeline.ledger.sweep(TENANT, timedelta(0), 0)
    worker = Presence(Process("worker", "worker@here", pipeline.services.tenants.digest))
    pipeline.ledger.scripts("seen", *worker.arguments())


def test_a_whole_configuration_holds_and_rhythm_is_not_called(pipeline: Pipeline, check: Check) -> None:
    code, found = check()
    assert code == 0
    assert found["redis"]["detail"] == "fsync"
    assert "no worker is running" in found["workers"]["detail"]
    assert pipeline.rhythm.requests() == []


def test_a_redis_that_may_lose_results_does_not_hold(pipeline: Pipeline, check: Check) -> None:
    pipeline.services.redis.config_set("appendfsync", "everysec")
    try:
        code, found = check()
    finally:
        pipeline.services.redis.config_set("appendfsync", "always")
    assert code == 1
    assert "appendfsync is everysec, must be always" in found["redis"]["detail"]


def test_live_tries_every_call_and_changes_nothing(pipeline: Pipeline, check: Check) -> None:
    swept(pipeline)
    pipeline.rhythm.seed(ORG, [registration()])
    before = pipeline.registration()
    code, found = check("--live")
    assert code == 0
    assert {name for name, one in found.items() if one["tenant"] == TENANT} == {
        "credentials",
        "exam exam-1",
        "read by id",
        "read by student",
        "patch",
        "batch",
    }
    assert pipeline.registration() == before
    assert pipeline.rhythm.counts()["writes"] == 0
    kinds = {one["kind"] for one in pipeline.rhythm.requests()}
    assert kinds >= {"search", "get", "student_exam", "patch", "batch"}


@pytest.mark.parametrize(
    ("fault", "check_name", "code", "detail"),
    [
        ({"status": 401}, "rhythm", 1, "Rhythm answered 401 to a search"),
        ({"status": 503}, "rhythm", 1, "Rhythm answered 503 to a search"),
        ({"status": 403, "kind": "patch"}, "patch", 1, "may read, not write"),
        ({"status": 403, "kind": "batch"}, "batch", 1, "may read, not write"),
        ({"status": 409, "kind": "patch"}, "patch", 1, "must be answered with 400"),
        ({"status": 503, "kind": "patch"}, "patch", 1, "Rhythm answered 503 to a patch"),
    ],
    ids=["refused", "down", "patch refused", "batch refused", "odd answer", "patch down"],
)
def test_live_finds_what_is_wrong_with_a_rhythm(
    pipeline: Pipeline, check: Check, fault: dict[str, Any], check_name: str, code: int, detail: str
) -> None:
    swept(pipeline)
    pipeline.rhythm.seed(ORG, [registration()])
    pipeline.rhythm.fault("status", **fault, times=None)
    ended, found = check("--live")
    assert ended == code
    assert found[check_name]["holds"] is False
    assert detail in found[check_name]["detail"]
    writes_only = fault.get("kind") is not None
    assert (pipeline.services.redis.hget(f"er:{TENANT}:gate", "reason") is None) is writes_only, "only reads close it"


def test_a_429_to_a_probing_write_closes_the_gate_for_all(pipeline: Pipeline, check: Check) -> None:
    swept(pipeline)
    pipeline.rhythm.seed(ORG, [registration()])
    pipeline.rhythm.fault("status", status=429, headers={"Retry-After": "60"}, kind="patch", times=None)
    code, found = check("--live")
    assert code == 3
    assert [(found[name]["holds"], found[name]["detail"]) for name in ("patch", "batch")] == [
        (None, "Rhythm answered 429 to a patch"),
        (None, "the gate is closed (rhythm_throttled)"),
    ]
    assert [one["kind"] for one in pipeline.rhythm.requests()].count("batch") == 0, "nobody calls before Retry-After"


def test_live_cannot_tell_where_nobody_is_registered(pipeline: Pipeline, check: Check) -> None:
    """A wrong url or tenant_id looks the same: 404 is Rhythm's word for an empty list."""
    swept(pipeline)
    code, found = check("--live")
    assert code == 3
    assert found["exam exam-1"]["holds"] is None
    assert "url, tenant_id or exam_id is wrong" in found["rhythm"]["detail"]


def test_live_does_not_call_through_a_closed_gate(pipeline: Pipeline, check: Check) -> None:
    swept(pipeline)
    pipeline.services.gate(TENANT).close(Reason.RHYTHM_THROTTLED, timedelta(seconds=60))
    code, found = check("--live")
    assert (code, found["rhythm"]["holds"]) == (3, None)
    assert "the gate is closed (rhythm_throttled)" in found["rhythm"]["detail"]
    assert pipeline.rhythm.requests() == []


def test_live_fails_when_no_sweep_ran(check: Check) -> None:
    code, found = check("--live")
    assert code == 1
    assert found["workers"]["holds"] is False
    assert found["sweep"] == {
        "check": "sweep",
        "holds": False,
        "detail": "no sweep yet: are beat and the sweeper running?",
        "tenant": None,
    }


def aged(pipeline: Pipeline, key: str, seconds: int) -> None:
    """Set a time of the ledger to so long ago."""
    now = int(pipeline.services.redis.time()[0]) - seconds
    if key.startswith("due:"):
        name = f"er:{TENANT}:{key}"
        pipeline.services.redis.zadd(name, dict.fromkeys(pipeline.services.redis.zrange(name, 0, -1), now * 1000))
    elif key == "sweep":
        pipeline.services.redis.hset("er:sweep", "at", now * 1000)
    else:
        pipeline.services.redis.set(f"er:{TENANT}:{key}", now * 1000)


def test_liveness_is_progress(pipeline: Pipeline) -> None:
    """Work that waits long is no fault while something moves; nor behind a closed gate; nor what is not due."""

    def checks() -> dict[str, str | None]:
        found = readiness(pipeline.services).checks
        stalled = f'examrelay_stalled{{tenant="{TENANT}"}} {1.0 if found["work"] else 0.0}'
        assert stalled in metrics(pipeline.services), "an alert rests on it"
        return found

    swept(pipeline)
    pipeline.deliver(certiverse("dlv-1"))
    assert checks()["work"] is None
    aged(pipeline, "due:process", 61)
    assert "received work is due since" in str(checks()["work"])
    pipeline.deliver(certiverse("dlv-2"))
    claim = pipeline.ledger.claim(TENANT, "token", 1, 0)
    aged(pipeline, "due:process", 61)
    assert "nothing moves" in str(checks()["work"]), "to claim is not to move"
    pipeline.services.redis.zadd(f"er:{TENANT}:due:process", {claim.works[0].id: 0})
    pipeline.sync()
    pipeline.deliver(certiverse("dlv-3"))
    aged(pipeline, "due:process", 600)
    assert checks()["work"] is None, "something moved a moment ago"
    aged(pipeline, "moved", 61)
    assert checks()["work"] is not None
    pipeline.process()
    aged(pipeline, "due:sync", 600)
    assert "ready work is due since" in str(checks()["work"])
    pipeline.services.gate(TENANT).close(Reason.RHYTHM_UNAVAILABLE, timedelta(seconds=30))
    assert checks()["work"] is None
    aged(pipeline, "sweep", 151)
    assert "the last sweep was 15" in str(checks()["sweep"])


def test_a_guard_that_is_switched_off_is_reported(client: Any, rhythm: Sandbox, tmp_path: Any) -> None:
    with pipeline_at(tmp_path, rhythm, rhythm='guard = "none"') as pipeline:
        done = command(pipeline.services.settings.config, "check")
    assert done.returncode == 0
    assert "may be overwritten" in done.stdout
