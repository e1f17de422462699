"""`enqueue` on bad days of Redis: away, hanging, full, forgetful, without its replica."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import redis

from tests.intakes import an_intake
from tests.running import Valkey, wait_until
from tests.slow import slow_proxy
from worker.errors import ConfigurationError, LedgerUnavailable
from worker.ledger import queries
from worker.receiver.intake import Intake


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """One that a test may stop."""
    server = Valkey().start()
    yield server
    server.close()


#: By the look at Redis, or by the record itself.
_NOT_THERE = ("0 replicas are connected, EXAMRELAY_REPLICAS wants 1", "0 of 1 replicas have it")


def refused_in_time(intake: Intake, body: str = "{}") -> str:
    """Also when many ask at once: one step takes a second at the longest. Gives why."""
    with ThreadPoolExecutor(8) as threads:
        began = time.monotonic()
        for one in [threads.submit(intake.accept, "acme", "certiverse", body) for _ in range(8)]:
            assert isinstance(one.exception(), LedgerUnavailable), one.exception()
        assert time.monotonic() - began < 1.5
    return str(one.exception())


def test_while_redis_is_away_hangs_or_is_full_it_says_so_in_time_and_then_goes_on(
    own_valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_valkey.pause()
    intake = an_intake(own_valkey, tmp_path, monkeypatch)
    refused_in_time(intake)
    own_valkey.resume()
    wait_until(lambda: accepts(intake, "1"), 10, "accepted")
    own_valkey.pause()
    refused_in_time(intake)
    own_valkey.resume()
    wait_until(lambda: accepts(intake, "2"), 10, "accepted")
    own_valkey.stop()
    assert "ConnectionError" in refused_in_time(intake)
    own_valkey.start()
    wait_until(lambda: accepts(intake, "3"), 10, "accepted")
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] / 0.9))
        wait_until(lambda: not accepts(intake, "4"), 10, "full")
        assert "of maxmemory is used" in refused_in_time(intake)
        client.config_set("maxmemory", 0)
        wait_until(lambda: accepts(intake, "5"), 10, "accepted")
        ids = {intake.accept("acme", "certiverse", body).id for body in "1235"}
        assert all(queries.event(client, "acme", id) for id in ids)
    intake.close()


def test_what_was_refused_may_be_recorded_after_all_and_sent_again_is_the_same_event(
    own_valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = an_intake(own_valkey, tmp_path, monkeypatch)
    assert accepts(intake, "0")
    own_valkey.pause()
    with ThreadPoolExecutor(100) as threads:
        assert not any(threads.map(lambda number: accepts(intake, str(number)), range(1, 100)))
    own_valkey.resume()
    wait_until(lambda: accepts(intake, "0"), 10, "accepted")
    with ThreadPoolExecutor(100) as threads:
        assert all(threads.map(lambda number: accepts(intake, str(number)), range(1, 100)))
    with redis.Redis.from_url(own_valkey.url) as client:
        assert queries.counts(client, "acme")["accepted"] == 100
    intake.close()


def test_a_slow_redis_takes_two_seconds_at_the_longest(
    own_valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its every answer takes 0.6 s, and the call needs four: it has lost the script."""
    with slow_proxy(own_valkey.port) as proxy:
        intake = an_intake(own_valkey, tmp_path, monkeypatch, REDIS_URL=proxy.url)
        assert accepts(intake, "1")
        with redis.Redis.from_url(own_valkey.url) as client:
            client.script_flush()
        proxy.seconds = 0.6
        began = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="no answer in time"):
            intake.accept("acme", "certiverse", "2")
        assert 1 < time.monotonic() - began < 2
        intake.close()


def test_many_threads_at_once_are_all_accepted_from_the_first_call_on(
    own_valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one connection pool of 16 the look of the seventeenth was refused, and so its delivery."""
    intake = an_intake(own_valkey, tmp_path, monkeypatch)
    begin = Barrier(40)

    def deliver(number: int) -> bool:
        begin.wait()
        return accepts(intake, str(number))

    with ThreadPoolExecutor(40) as threads:
        assert all(threads.map(deliver, range(40)))
    intake.close()


def accepts(intake: Intake, body: str) -> bool:
    try:
        return bool(intake.accept("acme", "certiverse", body))
    except LedgerUnavailable:
        return False


def test_a_redis_that_forgets_is_refused_at_the_first_call_unless_that_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetful = Valkey(appendfsync="everysec").start()
    try:
        intake = an_intake(forgetful, tmp_path, monkeypatch)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="appendfsync is everysec, must be always"):
                intake.accept("acme", "certiverse", "{}")
        intake.close()
        at_ease = an_intake(forgetful, tmp_path, monkeypatch, EXAMRELAY_DURABILITY="memory")
        assert at_ease.accept("acme", "certiverse", "{}").state == "received"
        at_ease.close()
    finally:
        forgetful.close()


def test_with_replicas_asked_for_it_is_on_one_when_it_returns(
    own_valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = an_intake(own_valkey, tmp_path, monkeypatch, EXAMRELAY_REPLICAS="1")
    assert refused_in_time(intake) in _NOT_THERE
    replica = Valkey().start()
    try:
        with redis.Redis.from_url(replica.url) as client, redis.Redis.from_url(own_valkey.url) as primary:
            primary.config_set("repl-diskless-sync-delay", 0)
            client.replicaof("127.0.0.1", own_valkey.port)
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", 20, "replication")
            wait_until(lambda: accepts(intake, "{}"), 10, "accepted")
            receipt = intake.accept("acme", "certiverse", "another")
            assert queries.event(client, "acme", receipt.id)
            replica.pause()
            assert refused_in_time(intake) in _NOT_THERE
            replica.resume()
    finally:
        replica.close()
        intake.close()
