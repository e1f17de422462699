"""Each process gives signs of life, with its configuration and version; a silent one is reported, then forgotten."""

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from sandbox.control import Sandbox
from tasks.operator.overview import overview
from tests.acceptance.stack import stack_at
from tests.console_peer import console
from tests.events import certiverse
from tests.pipeline import Pipeline
from tests.running import wait_until
from worker.bootstrap import Services
from worker.cli.status import show
from worker.health import readiness
from worker.ledger.client import Scripts
from worker.ledger.durability import why_refused
from worker.ledger.processes import Presence, Process, at_host, differences, ended, processes, silent
from worker.receiver.figures import metrics

WEB = Process("web", "web@here:8000", "0123456789ab", 7, "0.1.0")


def tell(client: "redis.Redis", process: Process) -> None:
    Scripts(client)("seen", *Presence(process).arguments())


def age(client: "redis.Redis", name: str, seconds: float) -> None:
    """Make a process' last sign of life this old."""
    client.zincrby("er:processes.seen", -seconds * 1000, name)


def test_a_process_is_known_by_what_it_tells(client: "redis.Redis") -> None:
    assert processes(client) == []
    tell(client, WEB)
    (found,) = processes(client)
    assert (found.kind, found.name, found.digest, found.pid, found.version) == (
        "web",
        "web@here:8000",
        "0123456789ab",
        7,
        "0.1.0",
    )
    assert found.seen_at is not None


def test_a_restarted_process_takes_its_own_place(client: "redis.Redis") -> None:
    tell(client, WEB)
    tell(client, Process("web", WEB.name, "another", 8, "0.2.0"))
    assert [(one.pid, one.digest) for one in processes(client)] == [(8, "another")]


def test_a_silent_process_is_reported_until_it_is_forgotten(client: "redis.Redis") -> None:
    tell(client, WEB)
    age(client, WEB.name, 25)
    assert [one.lives for one in processes(client)] == [True]
    age(client, WEB.name, 15)
    assert silent(processes(client)) == [
        "web@here:8000 has not been heard of for 40 s: frozen, killed or cut off",
    ]
    age(client, WEB.name, 600)
    assert processes(client) == []
    tell(client, Process("beat", "beat@here", "0123456789ab"))
    assert [one.name for one in processes(client)] == ["beat@here"]
    assert client.hkeys("er:processes") == [b"beat@here"]
    assert client.zcard("er:processes.seen") == 1


def test_a_process_that_ends_is_not_reported_as_silent(client: "redis.Redis") -> None:
    tell(client, WEB)
    ended(client, WEB.name)
    assert processes(client) == []


def test_a_sign_of_life_is_due_every_ten_seconds_however_often_it_is_asked() -> None:
    clock = [100.0]
    presence = Presence(WEB, lambda: clock[0])
    told = 0
    for _ in range(60):
        told += presence.due()
        clock[0] += 1
    assert told == 6


def test_members_that_another_version_adds_are_ignored(client: "redis.Redis") -> None:
    name, told, forget = Presence(WEB).arguments()
    Scripts(client)("seen", name, json.dumps(json.loads(str(told)) | {"mood": "good"}), forget)
    assert [one.name for one in processes(client)] == [WEB.name]


def test_differing_configurations_are_warned_of_with_who_runs_on_which() -> None:
    worker = Process("worker", "worker@here", "ba9876543210")
    assert differences([], "0123456789ab") == []
    assert differences([WEB], "0123456789ab") == []
    assert differences([WEB, worker], "0123456789ab") == [
        "processes run on different tenants files (0123456789ab: web@here:8000; ba9876543210: worker@here): "
        "restart those with the old one"
    ]
    (warning,) = differences([WEB], "ba9876543210")
    assert "this command reads another tenants file (ba9876543210) than the processes do" in warning


def test_status_shows_them_and_warns(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    client, digest = pipeline.services.redis, pipeline.services.tenants.digest
    for kind in ("web", "worker", "sweeper", "beat"):
        tell(client, Process(kind, f"{kind}@here", digest))
    status = overview(pipeline.services)
    assert status["workers"] == ["sweeper@here", "worker@here"]
    assert [one["name"] for one in status["processes"]] == ["beat@here", "sweeper@here", "web@here", "worker@here"]
    assert status["warnings"] == []
    tell(client, Process("worker", "worker@there", "0" * 12))
    status = overview(pipeline.services)
    show(status)
    shown = capsys.readouterr()
    assert "worker@there" in shown.out
    assert "0" * 12 in shown.out
    assert f"processes run on different tenants files ({'0' * 12}: worker@there; {digest}: beat@here" in shown.err


def test_no_worker_and_a_silent_one_are_shown_by_readiness_status_and_metrics(pipeline: Pipeline) -> None:
    at, client = pipeline.services, pipeline.services.redis
    without = "no worker is running: examrelay up, or what the Procfile says"
    assert readiness(at).checks["workers"] == without
    tell(client, Process("worker", "worker@a", at.tenants.digest))
    tell(client, Process("worker", "worker@b", at.tenants.digest))
    assert (readiness(at).checks["workers"], readiness(at).warnings) == (None, [])
    age(client, "worker@b", 45)
    told = "worker@b has not been heard of for 45 s: frozen, killed or cut off"
    assert (readiness(at).checks["workers"], readiness(at).warnings) == (None, [told])
    status = overview(at)
    assert status["workers"] == ["worker@a"]
    assert set(status["warnings"]) >= {told, "no receiver is running: nothing comes in by HTTP"}
    assert 'examrelay_processes{kind="worker"} 1.0' in metrics(at)
    assert 'examrelay_processes_silent{kind="worker"} 1.0' in metrics(at)
    age(client, "worker@a", 45)
    assert readiness(at).checks["workers"] == without


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"maxmemory": "0.9"}, "of maxmemory is used, 85% may be"),
        ({"replicas": 1}, "0 replicas are connected, EXAMRELAY_REPLICAS wants 1"),
    ],
)
def test_that_the_receiver_refuses_is_shown_by_readiness_status_and_metrics(
    pipeline: Pipeline, change: dict[str, Any], told: str
) -> None:
    at, client = pipeline.services, pipeline.services.redis
    assert why_refused(client, 0) is None
    if "maxmemory" in change:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] / 0.9))
    settings = at.settings.model_copy(update=change if "replicas" in change else {})
    at = Services(settings, client, at.ledger)
    try:
        assert told in str(readiness(at).checks["receiver"])
        assert any(told in warning for warning in overview(at)["warnings"])
        assert "examrelay_receiver_refuses 1.0" in metrics(at)
    finally:
        client.config_set("maxmemory", 0)


def test_reasons_that_waiting_events_wait_for_are_counted(pipeline: Pipeline) -> None:
    pipeline.run(certiverse("dlv-1"), certiverse("dlv-2"))
    pipeline.deliver(certiverse("dlv-3"))
    pipeline.process()
    found = overview(pipeline.services)["tenants"]["acme"]
    assert (found["ready"], found["received"]) == ({"registration_not_found": 2}, {})


def test_a_tenant_that_is_in_no_file_and_a_redis_that_forgets_are_warned_of(pipeline: Pipeline) -> None:
    client = pipeline.services.redis
    client.sadd("er:tenants", "gone")
    client.config_set("appendfsync", "everysec")
    try:
        status = overview(pipeline.services)
    finally:
        client.config_set("appendfsync", "always")
    assert "tenant gone has events here and is not in the tenants file: they wait" in status["warnings"]
    assert any("appendfsync is everysec" in warning for warning in status["warnings"])


def test_all_processes_give_signs_of_life(rhythm: Sandbox, tmp_path: Path) -> None:
    with stack_at(tmp_path, rhythm, EXAMRELAY_SWEEP_SECONDS="1") as stack:
        stack.start("web", "worker", "sweeper", "beat")
        found = wait_until(lambda: len(seen := processes(stack.client)) == 4 and seen, 30, "all four")
        host = socket.gethostname()
        assert [(one.kind, one.name) for one in found] == [
            ("beat", at_host("beat")),
            ("sweeper", f"sweeper@{host}"),
            ("web", f"web@{host}:{stack.port}"),
            ("worker", f"worker@{host}"),
        ]
        assert len({one.digest for one in found}) == 1
        assert {one.pid for one in found} == {stack.running[name].pid for name in ("web", "worker", "sweeper", "beat")}
        config = Path(stack.environ["EXAMRELAY_CONFIG"])
        config.write_text(config.read_text() + "\n# changed\n")
        stack.end("worker", signal.SIGSTOP)
        age(stack.client, f"worker@{host}", 31)
        frozen = requests.get(f"{stack.url}/readyz", timeout=5).json()
        assert frozen["checks"]["workers"].startswith("no worker is running")
        assert frozen["warnings"][0].startswith(f"worker@{host} has not been heard of for 3")
        stack.end("worker", signal.SIGCONT)
        wait_until(lambda: not silent(processes(stack.client)), 30, "its next sign of life")
        os.kill(stack.running["worker"].pid, signal.SIGTERM)  # the main process: it says goodbye
        wait_until(lambda: len(processes(stack.client)) == 3, 30, "its end")
        stack.end("worker", signal.SIGKILL)
        stack.start("worker")
        wait_until(lambda: len({one.digest for one in processes(stack.client)}) == 2, 30, "another configuration")
        old = next(one.digest for one in processes(stack.client) if one.kind == "web")
        (warning,) = differences(processes(stack.client), old)
        assert "restart those with the old one" in warning


def test_the_console_is_among_them_while_it_runs(pipeline: Pipeline) -> None:
    client, digest = pipeline.services.redis, pipeline.services.tenants.digest
    with console(pipeline.services):
        (found,) = wait_until(lambda: processes(client), 10, "the console's sign of life")
        assert (found.kind, found.name, found.digest) == ("console", f"{at_host('console')}:8001", digest)
        assert 'examrelay_processes{kind="console"} 1.0' in metrics(pipeline.services)
    assert processes(client) == []
