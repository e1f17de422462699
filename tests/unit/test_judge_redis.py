"""Whether a Redis is suitable, judged from its INFO and configuration."""

from collections.abc import Mapping
from typing import Any

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from worker.errors import ConfigurationError
from worker.ledger.durability import WANTED, answered, judge_redis
from worker.settings import Settings

SERVER = {"redis_version": "7.2.4", "redis_mode": "standalone"}
ROLE, PERSISTENCE, MEMORY = {"role": "master"}, {"aof_last_write_status": "ok"}, {"used_memory": 1, "maxmemory": 0}
#: What `INFO` of a managed Redis tells without CONFIG.
MANAGED = PERSISTENCE | {"aof_enabled": 1}


def judged(
    *,
    server: Mapping[str, Any] = SERVER,
    role: Mapping[str, Any] = ROLE,
    aof: Mapping[str, Any] = PERSISTENCE,
    memory: Mapping[str, Any] = MEMORY,
    config: Any = WANTED,
    durability: str = "fsync",
) -> str:
    settings = Settings(REDIS_URL="redis://:hunter2@h:1/2", durability=durability)
    return judge_redis(answered([server, role, aof, memory, config]), settings)


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
        ({"config": NoPermissionError("CONFIG")}, "appendfsync is unknown, for CONFIG GET is refused"),
        ({"config": {"maxmemory-policy": "noeviction"}, "aof": MANAGED}, "appendfsync is unknown, for CONFIG GET"),
        ({"config": ResponseError("unknown command"), "aof": PERSISTENCE | {"aof_enabled": 0}}, "appendonly is no"),
    ],
)
def test_an_unsuitable_redis_is_refused_with_its_address(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        judged(**told)
    assert str(caught.value).startswith("Redis at h:1/2 ")
    assert said in str(caught.value)


def test_where_a_loss_is_accepted_it_is_said_and_a_cluster_is_still_refused() -> None:
    assert judged() == "fsync"
    unknown = "appendfsync is unknown, for CONFIG GET is refused"
    untold = {
        "config": NoPermissionError("CONFIG"),
        "aof": MANAGED,
        "memory": MEMORY | {"maxmemory_policy": "noeviction"},
    }
    assert judged(**untold, durability="memory") == f"memory: {unknown}"
    assert judged(aof={"aof_last_write_status": "err"}, durability="memory").startswith("memory: its append-only file")
    with pytest.raises(ConfigurationError, match="Cluster"):
        judged(server={"redis_version": "7.2.4", "redis_mode": "cluster"}, durability="memory")


@pytest.mark.parametrize(
    ("aof", "policy", "said"),
    [
        (1, "noeviction", "promised: appendfsync is unknown, for CONFIG GET is refused"),
        (0, "noeviction", "appendonly is no, must be yes"),
        (1, "volatile-lru", "maxmemory-policy is volatile-lru, must be noeviction"),
    ],
)
def test_a_promise_stands_for_what_nobody_tells_and_for_nothing_that_info_denies(
    aof: int, policy: str, said: str
) -> None:
    untold: dict[str, Any] = {"config": ResponseError("unknown command"), "aof": PERSISTENCE | {"aof_enabled": aof}}
    untold["memory"] = MEMORY | {"maxmemory_policy": policy}
    if said.startswith("promised"):
        assert judged(**untold, durability="promised") == said
        assert judged(durability="promised") == "fsync"
        return
    with pytest.raises(ConfigurationError, match=said):
        judged(**untold, durability="promised")


def test_a_refused_info_is_raised_as_it_came() -> None:
    with pytest.raises(NoPermissionError):
        judged(server=NoPermissionError("INFO"))  # type: ignore[arg-type]
