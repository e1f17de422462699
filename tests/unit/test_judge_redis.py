"""Whether a Redis is suitable, judged from its INFO and configuration."""

from collections.abc import Mapping
from typing import Any

import pytest
from redis.exceptions import NoPermissionError

from worker.errors import ConfigurationError
from worker.ledger.durability import UNTOLD, WANTED, answered, judge_redis
from worker.settings import Settings

SERVER = {"redis_version": "7.2.4", "redis_mode": "standalone"}
ROLE, PERSISTENCE, MEMORY = {"role": "master"}, {"aof_last_write_status": "ok"}, {"used_memory": 1, "maxmemory": 0}


def judged(
    *,
    server: Mapping[str, Any] = SERVER,
    role: Mapping[str, Any] = ROLE,
    aof: Mapping[str, Any] = PERSISTENCE,
    config: Any = WANTED,
    durability: str = "fsync",
) -> str:
    settings = Settings(REDIS_URL="redis://:hunter2@h:1/2", durability=durability)
    return judge_redis(answered([server, role, aof, MEMORY, config]), settings)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"server": {"redis_version": "6.2.14"}}, "is 6.2.14; 7.2 or newer"),
        ({"server": SERVER | {"redis_mode": "cluster"}}, "is a Redis Cluster, and one ledger needs one keyspace"),
        ({"server": {"redis_version": "7.2.4", "server_mode": "cluster"}}, "is a Redis Cluster"),
        ({"role": {"role": "slave"}}, "is a replica and takes no writes"),
        ({"aof": {"aof_last_write_status": "err"}}, "its append-only file cannot be written"),
        ({"config": WANTED | {"appendonly": "no"}}, "appendonly is no, must be yes"),
        (
            {"config": {b"appendfsync": b"everysec", b"appendonly": b"yes", b"maxmemory-policy": b"noeviction"}},
            "appendfsync is everysec, must be always",
        ),
        ({"config": NoPermissionError("CONFIG")}, "appendfsync is unknown (CONFIG GET is refused)"),
    ],
)
def test_an_unsuitable_redis_is_refused_with_its_address(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        judged(**told)
    assert str(caught.value).startswith("Redis at h:1/2 ")
    assert said in str(caught.value)


def test_where_a_loss_is_accepted_it_is_said_and_a_cluster_is_still_refused() -> None:
    assert judged() == "fsync"
    assert judged(config=NoPermissionError("CONFIG"), durability="memory").startswith("memory: appendonly is unknown")
    assert judged(aof={"aof_last_write_status": "err"}, durability="memory").startswith("memory: its append-only file")
    with pytest.raises(ConfigurationError, match="Cluster"):
        judged(server={"redis_version": "7.2.4", "redis_mode": "cluster"}, durability="memory")
    assert set(UNTOLD) == set(WANTED)


def test_a_refused_info_is_raised_as_it_came() -> None:
    with pytest.raises(NoPermissionError):
        judged(server=NoPermissionError("INFO"))  # type: ignore[arg-type]
