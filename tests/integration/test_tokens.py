"""OAuth tokens in Redis: fetched once for all processes, sealed, and never fetched by two at once."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
import redis
from pydantic import SecretStr

from sandbox.control import Sandbox
from schemas.event import Policy
from tests.integration.rhythm_peer import TENANT, connection, registration
from tests.pipeline import Pipeline, pipeline_at
from tests.running import ROOT, Valkey
from worker.errors import TransientError
from worker.ledger.client import Scripts
from worker.ledger.gate import GateClosed
from worker.ledger.sealed import Sealer
from worker.ledger.tokens import RedisTokens
from worker.remote import RhythmConnection
from worker.rhythm.auth import Token

PROCESSES = 20
HOUR, DAY = 3600, 86_400
KEY = bytes(range(32))
NOW = datetime(2026, 3, 1, tzinfo=UTC)
TOKEN = Token(value=SecretStr("marked-token"), fetched_at=NOW, stale_at=NOW + timedelta(hours=1))


class Office:
    """Twenty real processes with one calendar."""

    def __init__(self, rhythm: Sandbox, processes: list[subprocess.Popen[str]]) -> None:
        self.rhythm = rhythm
        self.processes = processes

    def at(self, second: float) -> list[str]:
        """All of them call Rhythm twice at this time, at once. Returns the messages of those that failed."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{second}\n")
            process.stdin.flush()
        said = [process.stdout.readline().strip() for process in self.processes if process.stdout]
        return [one for one in said if one != "[True, True]"]

    def bought(self) -> int:
        """How many tokens the stand-in has issued."""
        return int(self.rhythm.counts()["tokens"])


@pytest.fixture(scope="module")
def started(valkey: Valkey, running_sandbox: Sandbox) -> Iterator[list[subprocess.Popen[str]]]:
    """The processes, started once: they keep nothing from one call to the next."""
    command = [sys.executable, "-m", "tests.integration.token_process", valkey.url, running_sandbox.url, KEY.hex()]
    with ExitStack() as ending:
        processes = []
        for _ in range(PROCESSES):
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            processes.append(ending.enter_context(process))
            ending.callback(process.kill)
        yield processes


@pytest.fixture
def office(client: "redis.Redis", rhythm: Sandbox, started: list[subprocess.Popen[str]]) -> Office:
    rhythm.seed(TENANT, [registration("reg-1")])
    return Office(rhythm, started)


def store(client: "redis.Redis", *keys: bytes, lease: float = 35) -> RedisTokens:
    return RedisTokens(client, Scripts(client), Sealer(keys), timedelta(seconds=lease))


def test_twenty_processes_buy_one_token_for_each_of_its_lives_in_a_working_day(office: Office) -> None:
    office.rhythm.options(token_seconds=HOUR)  # of which 55 minutes are used
    for half_hour in range(16):
        assert office.at(half_hour * HOUR / 2) == []
    assert office.bought() == 8
    assert office.rhythm.counts()["by_status"].get("401", 0) == 0


def test_a_month_of_working_days_takes_fewer_than_31_tokens(office: Office) -> None:
    for day in range(30):
        for hour in (7, 12, 18.5):
            assert office.at(day * DAY + hour * HOUR) == []
    print(f"{office.bought()} tokens for {PROCESSES} processes and {office.rhythm.counts()['calls']} calls")
    assert office.bought() == 30


def test_a_slow_token_endpoint_is_asked_by_one_while_the_others_wait(office: Office) -> None:
    office.rhythm.fault("latency", kind="token", ms=1500, times=None)
    assert office.at(0) == []
    assert office.bought() == 1


def test_a_refused_token_is_exchanged_once_by_all(office: Office) -> None:
    office.at(0)
    office.rhythm.expire_tokens()
    assert office.at(5 * HOUR) == []
    assert office.bought() == 2


def test_a_token_refused_again_and_again_is_not_bought_again_and_again(office: Office) -> None:
    office.at(0)
    office.rhythm.fault("status", kind="get", status=401, times=None)
    for minute in range(0, 240, 20):
        assert len(office.at(5 * HOUR + minute * 60)) == PROCESSES
    assert office.bought() == 2


def test_a_process_that_waits_too_long_puts_its_events_back_without_an_attempt(client: "redis.Redis") -> None:
    tokens = store(client)
    with tokens.lock("k"):
        with pytest.raises(GateClosed, match="another process is fetching the OAuth token") as caught, tokens.lock("k"):
            pass
        assert isinstance(caught.value, TransientError)
        assert caught.value.reason.policy is Policy.GATE
        with tokens.lock("another"):
            pass
    with tokens.lock("k"):
        pass


def test_one_has_the_lock_at_a_time_and_all_get_it(client: "redis.Redis") -> None:
    inside, most, done = [0], [0], []

    def run() -> None:
        tokens = store(client)
        for _ in range(5):
            with tokens.lock("k"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                client.ping()
                inside[0] -= 1
                done.append(1)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], len(done)) == (1, 40)


def test_a_holder_that_died_is_given_up_when_its_lease_ends(client: "redis.Redis") -> None:
    store(client, lease=0.3).lock("k").__enter__()
    with store(client).lock("k"):
        pass


def test_a_holder_whose_lease_ended_does_not_free_the_next_holders_lock(client: "redis.Redis") -> None:
    late, next_one = store(client, lease=0.2).lock("k"), store(client).lock("k")
    late.__enter__()
    next_one.__enter__()
    holder = client.get("er:token.k.lock")
    late.__exit__(None, None, None)
    assert client.get("er:token.k.lock") == holder
    next_one.__exit__(None, None, None)
    assert client.exists("er:token.k.lock") == 0


def test_a_failure_inside_gives_the_lock_back(client: "redis.Redis") -> None:
    with pytest.raises(ZeroDivisionError), store(client).lock("k"):
        raise ZeroDivisionError
    assert client.exists("er:token.k.lock") == 0


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["plain", "sealed"])
def test_a_stored_token_is_read_by_others_while_it_is_kept(client: "redis.Redis", keys: tuple[bytes, ...]) -> None:
    assert store(client, *keys).get("k") is None
    store(client, *keys).put("k", TOKEN)
    got = store(client, *keys).get("k")
    assert got is not None
    assert (got, got.value.get_secret_value()) == (TOKEN, "marked-token")
    # It is stale in an hour, but a young one that is refused must be known for four.
    assert 4 * HOUR - 60 < client.ttl("er:token.k") <= 4 * HOUR
    assert (b"marked-token" in (client.get("er:token.k") or b"")) is (not keys)


def test_a_token_sealed_under_a_key_that_is_not_here_is_waited_for_not_bought_again(client: "redis.Redis") -> None:
    store(client, KEY).put("k", TOKEN)
    with pytest.raises(GateClosed, match="the OAuth token: sealed under key"):
        store(client).get("k")


def test_a_damaged_token_counts_as_none(client: "redis.Redis") -> None:
    store(client, KEY).put("other", TOKEN)
    client.copy("er:token.other", "er:token.k")
    assert store(client, KEY).get("k") is None


def test_a_full_redis_does_not_keep_tokens_from_being_renewed(client: "redis.Redis") -> None:
    tokens = store(client)
    try:
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("more", "x")
        with tokens.lock("k"):
            tokens.put("k", TOKEN)
    finally:
        client.config_set("maxmemory", 0)
    assert tokens.get("k") == TOKEN


def test_a_redis_that_lost_the_token_costs_one_more(office: Office, client: "redis.Redis") -> None:
    office.at(0)
    client.flushall()
    assert office.at(60) == []
    assert office.bought() == 2


def oauth(url: str) -> RhythmConnection:
    return connection(
        url, credentials={"kind": "oauth", "domain": url, "client_id": "sandbox-client", "client_secret": "env:SECRET"}
    )


def test_each_process_that_is_built_shares_the_tokens(
    client: "redis.Redis", rhythm: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rhythm.seed(TENANT, [registration("reg-1")])
    for _ in range(3):
        with pipeline_at(tmp_path_factory.mktemp("one"), rhythm) as pipeline:
            assert called(pipeline, rhythm.url)
    assert rhythm.counts()["tokens"] == 1
    assert len(client.keys("er:token.*")) == 1


def called(pipeline: Pipeline, url: str) -> bool:
    at = pipeline.services
    tenant = at.tenants["acme"].model_copy(update={"rhythm": oauth(url)})
    return at.rhythm(tenant, at.gate("acme")).get("reg-1") is not None
