"""A Redis that becomes less durable while we run: it is noticed and reported, and forgotten when it is corrected."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.commands import command
from tests.events import certiverse
from tests.intakes import an_intake
from tests.running import Valkey, free_port, wait_until
from tests.senders import ReceiverAt, receiver_at
from worker.errors import ConfigurationError, LedgerUnavailable
from worker.ledger.client import connect
from worker.ledger.durability import check_redis
from worker.settings import load_settings

UNSAFE = {"appendfsync": "everysec", "maxmemory-policy": "allkeys-lru", "appendonly": "no"}
SAFE = {"appendfsync": "always", "maxmemory-policy": "noeviction", "appendonly": "yes"}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[ReceiverAt]:
    with receiver_at(tmp_path) as built:
        yield built


def refused(receiver: ReceiverAt, body: bytes) -> bool:
    answer = receiver.post(body)
    return answer.status_code == 503 and answer.headers["Retry-After"] == "5"


@pytest.mark.parametrize("name", UNSAFE)
def test_a_setting_changed_at_run_time_is_noticed_and_forgotten_when_set_back(running: ReceiverAt, name: str) -> None:
    running.client.config_set(name, UNSAFE[name])
    wait_until(lambda: refused(running, certiverse()), 4, "a refusal")
    said = f"{name} is {UNSAFE[name]}, must be {SAFE[name]}"
    assert said in running.call("GET", "/readyz").json()["checks"]["redis"]
    assert said in running.stack.log("web").read_text()
    running.client.config_set(name, SAFE[name])
    wait_until(lambda: running.post(certiverse()).status_code == 202, 6, "an answer")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverAt]:
    with receiver_at(tmp_path_factory.mktemp("receiver")) as built:
        yield built


def test_status_shows_the_ledger_and_that_nothing_is_accepted(running: ReceiverAt) -> None:
    running.client.config_set("appendfsync", "everysec")
    config = Path(running.stack.environ["EXAMRELAY_CONFIG"])
    told = command(config, "status", "--json", **{name: running.stack.environ[name] for name in _NEEDED})
    running.client.config_set("appendfsync", "always")
    status = json.loads(told.stdout)
    assert status["tenants"]["acme"]
    assert status["durability"] == "weaker than configured: the receiver refuses deliveries"
    assert any("appendfsync is everysec, must be always" in warning for warning in status["warnings"])


_NEEDED = (
    "REDIS_URL",
    "ACME_DRILLSTER",
    "ACME_PROV_KEY",
    "ACME_PROV_SECRET",
    "ACME_PROV_NEXT",
    "BETA_TOKEN",
    "BETA_HEADER",
    "BETA_WHSEC",
)


def test_after_a_restart_with_less_not_one_delivery_is_accepted(receiver: ReceiverAt) -> None:
    assert receiver.post(certiverse("dlv-0")).status_code == 202
    receiver.stack.valkey.stop(signal.SIGKILL)
    receiver.stack.valkey.start(appendfsync="everysec")
    assert [receiver.post(certiverse(f"dlv-{number}")).status_code for number in range(1, 20)] == [503] * 19
    assert receiver.accepted() == 1
    receiver.stack.valkey.stop()
    receiver.stack.valkey.start(appendfsync="always")
    wait_until(lambda: receiver.post(certiverse("dlv-1")).status_code == 202, 5, "an answer")


def test_one_that_became_a_replica_is_named(running: ReceiverAt) -> None:
    running.client.replicaof("127.0.0.1", free_port())
    wait_until(lambda: refused(running, certiverse()), 4, "a refusal")
    assert "is a replica and takes no writes" in running.call("GET", "/readyz").json()["checks"]["redis"]
    running.client.replicaof("NO", "ONE")
    wait_until(lambda: running.post(certiverse()).status_code == 202, 6, "an answer")


def test_enqueue_notices_too(running: ReceiverAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    intake = an_intake(running.stack.valkey, tmp_path, monkeypatch)

    def answer() -> str:
        try:
            return intake.accept("acme", "certiverse", "{}").state
        except LedgerUnavailable as error:
            return str(error)

    assert answer() == "received"
    running.client.config_set("appendfsync", "everysec")
    wait_until(lambda: "appendfsync is everysec, must be always" in answer(), 3, "a refusal")
    running.client.config_set("appendfsync", "always")
    wait_until(lambda: answer() == "received", 3, "an answer")
    intake.close()


def test_a_cluster_is_refused_by_check_and_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Valkey(cluster_enabled="yes", cluster_port=str(free_port())).start()
    try:
        with redis.Redis.from_url(cluster.url) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"), 10, "the cluster")
        intake = an_intake(cluster, tmp_path, monkeypatch)
        with pytest.raises(Exception, match="is a Redis Cluster, and one ledger needs one keyspace"):
            intake.accept("acme", "certiverse", "{}")
        intake.close()
        done = command(tmp_path / "examrelay.toml", "check", "--json", REDIS_URL=cluster.url)
        assert done.returncode == 1
        found = {one["check"]: one for one in json.loads(done.stdout)["checks"]}
        assert "is a Redis Cluster" in found["redis"]["detail"]
    finally:
        cluster.close()


def without_config(folder: Path, way: str, **config: str) -> Valkey:
    """A Redis as providers run it: nobody may ask for its configuration."""
    (folder / "managed.conf").write_text(
        'rename-command CONFIG ""\n' if way == "renamed" else "user default on nopass ~* &* +@all -config\n"
    )
    return Valkey(include=str(folder / "managed.conf"), **config).start()


@pytest.mark.parametrize("way", ["renamed", "denied"])
def test_a_managed_redis_without_config_needs_its_providers_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    server = without_config(tmp_path, way)
    try:
        intake = an_intake(server, tmp_path, monkeypatch)
        with pytest.raises(ConfigurationError) as caught:
            intake.accept("acme", "certiverse", "{}")
        assert "appendfsync is unknown, for CONFIG GET is refused. Allow this user CONFIG GET." in str(caught.value)
        assert "set EXAMRELAY_DURABILITY=promised if" in str(caught.value)
        assert "appendonly" not in str(caught.value)
        intake.close()
        monkeypatch.setenv("EXAMRELAY_DURABILITY", "promised")
        intake = an_intake(server, tmp_path, monkeypatch)
        assert intake.accept("acme", "certiverse", "{}").state == "received"
        intake.close()
        with connect(load_settings()) as client:
            assert check_redis(client, load_settings()) == "promised: appendfsync is unknown, for CONFIG GET is refused"
    finally:
        server.close()


@pytest.mark.parametrize("config", [{"appendonly": "no"}, {"maxmemory_policy": "allkeys-lru"}], ids=str)
def test_a_promise_that_info_denies_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, str]
) -> None:
    server = without_config(tmp_path, "renamed", **config)
    try:
        monkeypatch.setenv("EXAMRELAY_DURABILITY", "promised")
        intake = an_intake(server, tmp_path, monkeypatch)
        (name, value), *_ = config.items()
        with pytest.raises(ConfigurationError, match=f"{name.replace('_', '-')} is {value}, must be"):
            intake.accept("acme", "certiverse", "{}")
        intake.close()
    finally:
        server.close()
