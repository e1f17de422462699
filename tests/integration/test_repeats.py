"""A script whose reply was lost is repeated by redis-py: it gives the same answer and has no second effect."""

import re
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis

from schemas.event import Reason, Receipt
from schemas.outcome import Source
from tests.cutting import CuttingProxy, cutting_proxy
from tests.running import Valkey
from worker.ledger import decisions
from worker.ledger.client import SCRIPTS, connect, script_text
from worker.ledger.decisions import Decision
from worker.ledger.events import Ledger
from worker.ledger.gate import Gate
from worker.ledger.recorder import BlockingRecorder
from worker.ledger.tokens import TOKEN
from worker.ledger.work import Claim, Prepared
from worker.settings import Settings

T = "acme"
Act = Callable[[Ledger], Any]


@pytest.fixture
def proxy(valkey: Valkey) -> Iterator[CuttingProxy]:
    """A way to the tests' Valkey that can lose a reply."""
    with cutting_proxy(valkey.port) as cutting:
        yield cutting


def ledger_at(url: str, *, patient: bool = False) -> Ledger:
    """A ledger that redis-py repeats calls for."""
    client = connect(Settings(redis_url=url, config="none.toml"), patient=patient)  # type: ignore[arg-type]
    ledger = Ledger(client, timedelta(seconds=60))
    for name in SCRIPTS:
        client.script_load(ledger.scripts._scripts[name].script)
    client.script_load(script_text("record"))
    return ledger


def record(ledger: Ledger, *numbers: int) -> list[Receipt]:
    recorder = BlockingRecorder(ledger.client, Settings())
    return [recorder.record(T, f"evt_{number}", Source.CERTIVERSE, "", b"{}", "") for number in numbers]


def claim(ledger: Ledger, limit: int = 100) -> Claim:
    return ledger.claim(T, "token", limit, 2)


def new(number: int, **more: Any) -> dict[str, Any]:
    """What `prepare` is told of an event."""
    about = {"delivery": f"certiverse:{number}", "version": "o-1", "who": f"name-of-{number:04}", "accepts": {}}
    return {"id": f"evt_{number}"} | about | more


def prepare(ledger: Ledger, *plans: dict[str, Any]) -> list[Prepared]:
    return ledger.prepare(T, "token", list(plans))


def settled(number: int) -> Decision:
    return decisions.settle(f"evt_{number}", "written", f"reg-{number}", sys_version=2, values="{}")


def ready(ledger: Ledger, *numbers: int) -> None:
    record(ledger, *numbers)
    claim(ledger)
    prepare(ledger, *map(new, numbers))
    ledger.apply(T, "token", [decisions.defer(f"evt_{number}", timedelta(0)) for number in numbers], last=True)


def stopped(ledger: Ledger) -> None:
    record(ledger, 1)
    claim(ledger)
    ledger.apply(T, "token", [decisions.stop("evt_1", Reason.INVALID_JSON, "not JSON")], last=True)


def plan(number: int) -> dict[str, str]:
    return {"id": f"evt_{number}", "registration": f"reg-{number}", "rev": "0", "delivery_rev": "1", "intent": "{}"}


def syncing(ledger: Ledger) -> None:
    ready(ledger, 1, 2)
    claim(ledger)


def expired(ledger: Ledger) -> None:
    """Two events claimed by a task that died."""
    record(ledger, 1, 2)
    claim(ledger)
    ledger.client.zadd(f"er:{T}:due:process", {"evt_1": 1, "evt_2": 2})


def final_and_old(ledger: Ledger) -> None:
    ready(ledger, 1, 2)
    claim(ledger)
    ledger.apply(T, "token", [settled(1), settled(2)], last=True)
    record(ledger, 3)
    ledger.client.delete(f"er:{T}:hint")
    ledger.client.zadd(f"er:{T}:events", {"evt_1": 1, "evt_2": 1})
    for number in (1, 2):
        ledger.client.hset(f"er:{T}:event:evt_{number}", "received_at", 1)


def shut(ledger: Ledger) -> None:
    Gate(ledger.scripts, T, None).close(Reason.RHYTHM_UNAVAILABLE, None)
    ledger.client.hset(f"er:{T}:gate", "closed_until", 0)


def throttled(ledger: Ledger) -> None:
    gate(ledger, "take", 100, 10_000, 30_000, 0, 0)
    gate(ledger, "close", "rhythm_throttled", 1, 2000, 60_000, 0.5, 100)
    ledger.client.hset(f"er:{T}:gate", mapping={"closed_until": 0, "next": 0})
    gate(ledger, "open")


def gate(ledger: Ledger, *args: str | float) -> Any:
    return ledger.scripts("gate", T, *args)


def locked(ledger: Ledger) -> None:
    ledger.scripts("token", TOKEN + "k", "lock", "me", 10_000)


CLOSING = ("close", "rhythm_throttled", 0, 2000, 60_000, 0.5, 0)
CASES: dict[str, tuple[Act, Act]] = {
    "record": (lambda _: None, lambda at: record(at, 1)),
    "record: one that is recorded already": (
        lambda at: (record(at, 1), at.client.hset(f"er:{T}:event:evt_1", "nonce", "an earlier one's")),
        lambda at: record(at, 1),
    ),
    "claim": (lambda at: record(at, 1, 2, 3), lambda at: claim(at, limit=2)),
    "claim: a task's second": (
        lambda at: (record(at, 1, 2), claim(at, limit=1), prepare(at, new(1)), at.apply(T, "token", [settled(1)])),
        lambda at: claim(at, limit=1),
    ),
    "claim: leases that expired": (expired, lambda at: at.claim(T, "other", 100, 2)),
    "claim: what is prepared": (lambda at: (ready(at, 1, 2), record(at, 3)), claim),
    "claim: nothing is due": (lambda _: None, claim),
    "prepare": (lambda at: (record(at, 1, 2), claim(at)), lambda at: prepare(at, new(1), new(2))),
    "prepare: what is ready": (syncing, lambda at: prepare(at, new(1), new(2))),
    "prepare: what is read differently now": (syncing, lambda at: prepare(at, new(1, version="o-2"))),
    "prepare: a copy, and a result under an `eventId` that came before": (
        lambda at: (record(at, 1, 2, 3), claim(at)),
        lambda at: prepare(at, new(1, ref="drillster:e"), new(2, delivery="certiverse:1"), new(3, ref="drillster:e")),
    ),
    "apply: the last": (syncing, lambda at: at.apply(T, "token", [settled(1), settled(2)], last=True)),
    "apply: defer with an attempt": (
        syncing,
        lambda at: at.apply(
            T,
            "token",
            [decisions.defer("evt_1", timedelta(0), Reason.RHYTHM_UNAVAILABLE, "502", attempt=True)],
            last=True,
        ),
    ),
    "apply: hold": (
        syncing,
        lambda at: at.apply(T, "token", [decisions.stop("evt_1", Reason.UNKNOWN_EXAM, "which?")]),
    ),
    "intend": (syncing, lambda at: at.intend(T, "token", [plan(1), plan(2)])),
    "apply: a task ends": (syncing, lambda at: at.apply(T, "token", [], last=True)),
    "steer: replay": (stopped, lambda at: at.replay(T, "evt_1", "op", {"accept": ["unknown_exam"]})),
    "steer: discard": (stopped, lambda at: at.discard(T, "evt_1", "op", "why")),
    "steer: forget": (stopped, lambda at: at.forget(T, "evt_1", "op")),
    "steer: forget a final one": (final_and_old, lambda at: at.forget(T, "evt_1", "op")),
    "sweep": (final_and_old, lambda at: at.sweep(T, timedelta(seconds=5), 1)),
    "gate: take": (lambda _: None, lambda at: gate(at, "take", 200, 10_000, 30_000, 0, 50)),
    "gate: take, a learned pace": (throttled, lambda at: gate(at, "take", 0, 10_000, 30_000, 0, 50)),
    "gate: take without a pace": (lambda _: None, lambda at: gate(at, "take", 0, 10_000, 30_000, 0, 0)),
    "gate: take as the probe": (shut, lambda at: gate(at, "take", 0, 10_000, 30_000, 0, 0)),
    "gate: look, a void turn": (throttled, lambda at: gate(at, "look", 0, 10_000, 30_000, 0, 0, 7)),
    "gate: close": (lambda _: None, lambda at: gate(at, *CLOSING)),
    "gate: close, a second lesson": (throttled, lambda at: gate(at, *CLOSING)),
    "gate: open": (shut, lambda at: gate(at, "open")),
    "token: lock": (lambda _: None, locked),
    "token: unlock": (locked, lambda at: at.scripts("token", TOKEN + "k", "unlock", "me")),
    "token: put": (lambda _: None, lambda at: at.scripts("token", TOKEN + "k", "put", "sealed", 10_000)),
    "look": (stopped, lambda at: at.look(T, "evt_1")),
    "seen": (lambda _: None, lambda at: at.scripts("seen", "worker", "{}", 60_000)),
}


def untimed(told: object) -> str:
    """Without what differs between any two runs: times, what is counted from them, and random names."""
    return re.sub(r"\d+(?=\\t)|datetime\([^)]*\)|[0-9a-f]{16}|\d*\.\d+|\d{2,}", "T", str(told))


def all_that_is_kept(client: "redis.Redis") -> dict[str, str]:
    read = {
        b"hash": client.hgetall,
        b"string": client.get,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"list": lambda key: client.lrange(key, 0, -1),
    }
    keys = [key for key in client.scan_iter("*") if not key.startswith(b"er:said.")]
    kept = {key.decode(): read[client.type(key)](key) for key in sorted(keys)}  # type: ignore[operator]
    return {
        key: untimed(sorted(value.items()) if isinstance(value, dict) else value)  # type: ignore[type-var]
        for key, value in kept.items()
    }


@pytest.mark.parametrize("case", CASES)
def test_a_repeated_script_answers_the_same_and_moves_nothing_twice(
    case: str, client: "redis.Redis", valkey: Valkey, proxy: CuttingProxy
) -> None:
    before, act = CASES[case]
    ledger, cut = ledger_at(valkey.url), ledger_at(proxy.url)
    before(ledger)
    wanted = untimed(act(ledger))
    kept = all_that_is_kept(client)
    client.flushdb()
    before(ledger)
    proxy.lose_reply()
    assert untimed(act(cut)) == wanted
    assert proxy.cuts == 1, "the reply was lost"
    assert all_that_is_kept(client) == kept


def test_every_script_is_among_the_repeats() -> None:
    assert {case.partition(":")[0] for case in CASES} == {"record", *SCRIPTS}


def test_a_repeated_claim_is_not_given_what_is_another_s_by_now(client: "redis.Redis", proxy: CuttingProxy) -> None:
    cut = ledger_at(proxy.url)
    record(cut, 1, 2)
    proxy.lose_reply(lambda: client.hset(f"er:{T}:event:evt_1", "lease", "another's") and None)
    assert [work.id for work in claim(cut).works] == ["evt_2"]


def test_an_answer_kept_for_a_repeat_expires_and_only_a_caller_s_last_is_kept(client: "redis.Redis") -> None:
    ledger = ledger_at(f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0")
    ready(ledger, 1, 2)
    claim(ledger)
    (said,) = client.keys("er:said.*")
    assert 0 < client.pttl(said) <= 600_000
    assert b"sealed" not in (client.get(said) or b"")


@pytest.mark.parametrize(
    "case", ["claim", "apply: the last", "intend", "steer: replay", "gate: take as the probe", "sweep"]
)
def test_a_redis_that_is_restarted_between_effect_and_reply_gives_the_same_answer(case: str, private: Valkey) -> None:
    before, act = CASES[case]
    ledger = ledger_at(private.url)
    ledger.client.flushdb()
    before(ledger)
    wanted = untimed(act(ledger))
    kept = all_that_is_kept(ledger.client)
    ledger.client.flushdb()
    before(ledger)
    with cutting_proxy(private.port) as proxy:
        cut = ledger_at(proxy.url, patient=True)

        def restart() -> None:
            private.stop(signal.SIGTERM)
            private.start()

        proxy.lose_reply(restart)
        assert untimed(act(cut)) == wanted
        assert proxy.cuts == 1
    assert all_that_is_kept(ledger.client) == kept


@pytest.fixture(scope="module")
def private() -> Iterator[Valkey]:
    """A Valkey to stop and start."""
    server = Valkey().start()
    yield server
    server.close()
