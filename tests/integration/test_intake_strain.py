"""`enqueue` on bad days of Redis: away, hanging, full, forgetful, without its replica."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from schemas.outcome import Source
from tests.intakes import an_intake
from tests.running import Valkey, wait_until
from worker.errors import ConfigurationError, LedgerUnavailable
from worker.ledger import queries
from worker.ledger.events import Ledger
from worker.receiver.intake import Intake


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """One that a test may stop."""
    server = Valkey().start()
    yield server
    server.close()


#: Who waits behind others, which wait for a replica, may hear that time is up.
_NOT_THERE = (
    "0 replicas are connected, EXAMRELAY_REPLICAS wants 1", "0 of 1 replicas have it", "TimeoutError",
)  # fmt: skip


def refused_within_a_second(intake: Intake, body: str = "{}") -> str:
    """Also when many ask at once. Gives why."""
    with ThreadPoolExecutor(8) as threads:
        began = time.monotonic()
        for one in [threads.submit(intake.accept, "acme", "certiverse", body) for _ in range(8)]:
            assert isinstance(one.exception(), LedgerUnavailable), one.exception()
        assert time.monotonic() - began < 1.0
    return str(one.exception())


def test_while_redis_is_away_hangs_or_is_full_it_says_so_within_a_second_and_then_goes_on(
    own_valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_valkey.pause()
    intake = an_intake(own_valkey, tmp_path, monkeypatch)
    refused_within_a_second(intake)
    own_valkey.resume()
    wait_until(lambda: accepts(intake, "1"), 10, "accepted")
    own_valkey.pause()
    refused_within_a_second(intake)
    own_valkey.resume()
    wait_until(lambda: accepts(intake, "2"), 10, "accepted")
    own_valkey.stop()
    assert "ConnectionError" in refused_within_a_second(intake)
    own_valkey.start()
    wait_until(lambda: accepts(intake, "3"), 10, "accepted")
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] / 0.9))
        wait_until(lambda: not accepts(intake, "4"), 10, "full")
        assert "of maxmemory is used" in refused_within_a_second(intake)
        client.config_set("maxmemory", 0)
        wait_until(lambda: accepts(intake, "5"), 10, "accepted")
        ids = {intake.accept("acme", "certiverse", body).id for body in "1235"}
        assert all(queries.event(client, "acme", id) for id in ids)
    intake.close()


def test_what_nobody_waits_for_any_more_is_not_worked_off_later(
    own_valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = an_intake(own_valkey, tmp_path, monkeypatch)
    assert accepts(intake, "0")
    own_valkey.pause()
    with ThreadPoolExecutor(500) as threads:
        tried = [threads.submit(accepts, intake, str(number)) for number in range(500)]
    assert not any(one.result() for one in tried)
    own_valkey.resume()
    wait_until(lambda: accepts(intake, "500"), 10, "accepted")
    with redis.Redis.from_url(own_valkey.url) as client:
        assert queries.counts(client, "acme")["accepted"] < 400
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
    ledger = Ledger(redis.Redis.from_url(own_valkey.url), timedelta(seconds=60), replicas=1)
    assert refused_within_a_second(intake) in _NOT_THERE
    with pytest.raises(LedgerUnavailable, match="0 of 1 replicas"):
        ledger.record("acme", "evt_1", Source.CERTIVERSE, b"{}", "", "")
    replica = Valkey().start()
    try:
        with redis.Redis.from_url(replica.url) as client:
            ledger.client.config_set("repl-diskless-sync-delay", 0)
            client.replicaof("127.0.0.1", own_valkey.port)
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", 20, "replication")
            wait_until(lambda: accepts(intake, "{}"), 10, "accepted")
            receipt = intake.accept("acme", "certiverse", "another")
            assert queries.event(client, "acme", receipt.id)
            ours = ledger.record("acme", "evt_2", Source.CERTIVERSE, b"{}", "", "")
            assert queries.event(client, "acme", ours.id)
            replica.pause()
            assert refused_within_a_second(intake) in _NOT_THERE
            replica.resume()
    finally:
        replica.close()
        intake.close()
        ledger.client.close()
