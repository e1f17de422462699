"""Each process says that it is at work, on which configuration and version; who says nothing any more is forgotten."""

import json
import signal
import socket
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox
from tests.acceptance.stack import stack_at
from tests.pipeline import Pipeline
from tests.running import wait_until
from worker import cli_status
from worker.health import readiness
from worker.ledger.client import Scripts
from worker.ledger.processes import Presence, Process, at_host, differences, processes

WEB = Process("web", "web@here:8000", "0123456789ab", 7, "0.1.0")


def tell(client: "redis.Redis", process: Process) -> None:
    Scripts(client)("seen", *Presence(process).arguments())


def age(client: "redis.Redis", name: str, seconds: float) -> None:
    """Let it be that long since a process was seen."""
    client.zincrby("er:processes.seen", -seconds * 1000, name)


def test_a_process_is_known_by_what_it_tells(client: "redis.Redis") -> None:
    assert processes(client) == []
    tell(client, WEB)
    (found,) = processes(client)
    assert (found.kind, found.name, found.digest, found.pid, found.version) == (
        "web", "web@here:8000", "0123456789ab", 7, "0.1.0",
    )  # fmt: skip
    assert found.seen_at is not None


def test_a_restarted_process_takes_its_own_place(client: "redis.Redis") -> None:
    tell(client, WEB)
    tell(client, Process("web", WEB.name, "another", 8, "0.2.0"))
    assert [(one.pid, one.digest) for one in processes(client)] == [(8, "another")]


def test_one_not_seen_for_90_seconds_is_not_shown_and_is_forgotten_when_another_tells(client: "redis.Redis") -> None:
    tell(client, WEB)
    age(client, WEB.name, 85)
    assert len(processes(client)) == 1
    age(client, WEB.name, 6)
    assert processes(client) == []
    tell(client, Process("beat", "beat@here", "0123456789ab"))
    assert [one.name for one in processes(client)] == ["beat@here"]
    assert client.hkeys("er:processes") == [b"beat@here"]
    assert client.zcard("er:processes.seen") == 1


def test_it_may_be_asked_all_the_time_and_tells_every_twenty_seconds() -> None:
    clock = [100.0]
    presence = Presence(WEB, lambda: clock[0])
    told = 0
    for _ in range(60):
        told += presence.due()
        clock[0] += 1
    assert told == 3


def test_a_process_of_another_version_may_tell_more(client: "redis.Redis") -> None:
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
    status = cli_status.gather(pipeline.services)
    assert status["workers"] == ["sweeper@here", "worker@here"]
    assert [one["name"] for one in status["processes"]] == ["beat@here", "sweeper@here", "web@here", "worker@here"]
    assert status["warnings"] == []
    tell(client, Process("worker", "worker@there", "0" * 12))
    status = cli_status.gather(pipeline.services)
    cli_status.show(status)
    shown = capsys.readouterr()
    assert "worker@there" in shown.out
    assert "0" * 12 in shown.out
    assert f"processes run on different tenants files ({'0' * 12}: worker@there; {digest}: beat@here" in shown.err


def test_readiness_does_not_ask_for_them(pipeline: Pipeline) -> None:
    """So that `/readyz` costs the same however many there are."""
    client = pipeline.services.redis
    client.config_resetstat()
    readiness(pipeline.services)
    assert "cmdstat_hgetall" not in client.info("commandstats")


def test_all_processes_tell_of_themselves(rhythm: Sandbox, tmp_path: Path) -> None:
    with stack_at(tmp_path, rhythm, EXAMRELAY_SWEEP_SECONDS="1") as stack:
        stack.start("web", "worker", "sweeper", "beat")
        found = wait_until(lambda: len(seen := processes(stack.client)) == 4 and seen, 30, "all four")
        host = socket.gethostname()
        assert [(one.kind, one.name) for one in found] == [
            ("beat", at_host("beat")), ("sweeper", f"sweeper@{host}"), ("web", f"web@{host}:{stack.port}"),
            ("worker", f"worker@{host}"),
        ]  # fmt: skip
        assert len({one.digest for one in found}) == 1
        assert {one.pid for one in found} == {stack.running[name].pid for name in ("web", "worker", "sweeper", "beat")}
        config = Path(stack.environ["EXAMRELAY_CONFIG"])
        config.write_text(config.read_text() + "\n# changed\n")
        stack.end("worker", signal.SIGTERM)
        stack.start("worker")
        wait_until(lambda: len({one.digest for one in processes(stack.client)}) == 2, 30, "another configuration")
        old = next(one.digest for one in processes(stack.client) if one.kind == "web")
        (warning,) = differences(processes(stack.client), old)
        assert "restart those with the old one" in warning
