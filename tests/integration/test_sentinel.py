"""Redis behind Sentinel: every part goes to the present primary, and stays with no former one."""

import asyncio
import contextlib
import json
import signal
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from schemas.event import Receipt
from schemas.outcome import Source
from tests.commands import command
from tests.integration.test_redis_ways import HARD, PARTS, Part, given
from tests.running import free_port, wait_until
from tests.sentinels import NAME, Pair
from tests.tenants import write_tenants
from tests.tls import Authority, TlsFront, tls_front
from worker.celery import make_app
from worker.errors import ConfigurationError, LedgerUnavailable
from worker.ledger.client import Scripts, connect, connect_blocking_recorder, connect_recorder
from worker.ledger.durability import check_redis
from worker.ledger.processes import Presence, Process
from worker.ledger.recent import takeovers
from worker.ledger.recorder import BlockingRecorder, Recorder
from worker.ledger.sentinel import why_no_failover
from worker.settings import Settings

THEIRS = "for the sentinel"


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair().start()
    yield pair
    pair.close()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> Settings:
    return given(monkeypatch, pair.url)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Pair]:
    """One with a password for the servers and another for the sentinel, and a hint in database 3."""
    pair = Pair(password=HARD, sentinel_password=THEIRS).start()
    with redis.Redis.from_url(pair.primary.url.replace("/0", "/3")) as client:
        client.lpush("examrelay", "a hint")
    yield pair
    pair.close()


@pytest.fixture(scope="module")
def frozen() -> Iterator[int]:
    """The port of a sentinel that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("part", PARTS)
def test_every_part_finds_the_primary_past_sentinels_that_are_down_and_frozen(
    monkeypatch: pytest.MonkeyPatch, guarded: Pair, frozen: int, part: Part
) -> None:
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{frozen},127.0.0.1:{guarded.port}"
    login = f"sentinel_password={quote(THEIRS)}"
    url = f"sentinel://:{quote(HARD, safe='')}@{hosts}/3?master_name={NAME}&{login}"
    began = time.monotonic()
    part(given(monkeypatch, url))
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("part", PARTS)
def test_a_wrong_password_for_the_sentinel_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, guarded: Pair, part: Part
) -> None:
    url = f"sentinel://:{quote(HARD, safe='')}@127.0.0.1:{guarded.port}/3?master_name={NAME}"
    with pytest.raises(Exception, match="invalid username-password pair") as caught:
        part(given(monkeypatch, f"{url}&sentinel_password=hunter2"))
    assert "hunter2" not in str(caught.value)


class Renaming(TlsFront):
    """Ends TLS in front of a sentinel, and tells another port of the primary: that of TLS in front of it."""

    ports = (b"", b"")

    def _answers(self, server: socket.socket, client: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError):
            while said := server.recv(65536):
                client.sendall(said.replace(*self.ports))


@pytest.fixture
def behind_tls(guarded: Pair, tmp_path: Path) -> Iterator[tuple[Authority, Renaming, TlsFront]]:
    """TLS with a certificate for 127.0.0.1, in front of the sentinel and in front of the primary."""
    authority = Authority(tmp_path, "ours")
    signed = authority.sign("server", "127.0.0.1")
    with tls_front(guarded.primary.port, signed) as server:
        sentinel = Renaming(guarded.port, signed)
        sentinel.ports = (str(guarded.primary.port).encode(), str(server.port).encode())
        yield authority, sentinel, server
        sentinel.close()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("trusted", [True, False])
def test_over_tls_sentinels_and_servers_are_verified_before_they_hear_a_password(
    monkeypatch: pytest.MonkeyPatch,
    behind_tls: tuple[Authority, Renaming, TlsFront],
    part: Part,
    trusted: bool,
) -> None:
    authority, sentinel, server = behind_tls
    url = f"rediss+sentinel://:{quote(HARD, safe='')}@127.0.0.1:{sentinel.port}/3?master_name={NAME}"
    url += f"&sentinel_password={quote(THEIRS)}"
    if trusted:
        part(given(monkeypatch, f"{url}&ssl_ca_certs={authority.file}"))
        assert (THEIRS.encode() in sentinel.heard, HARD.encode() in server.heard) == (True, True)
    else:
        with pytest.raises(Exception, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
            part(given(monkeypatch, url))
        assert (sentinel.heard, server.heard) == (b"", b"")


def test_the_check_says_which_primary_was_found_and_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, tmp_path: Path
) -> None:
    config = write_tenants(tmp_path, "http://127.0.0.1:1")
    found = command(config, "check", "--json", REDIS_URL=pair.url)
    checks = {one["check"]: one for one in json.loads(found.stdout)["checks"]}
    assert checks["redis"]["detail"] == f"fsync; the sentinels name 127.0.0.1:{pair.primary.port} as primary"
    assert "NOQUORUM" in checks["sentinels"]["detail"]
    assert not checks["sentinels"]["holds"]
    for url, said in (
        (pair.url.replace(NAME, "other"), "watch no primary of the name that master_name gives"),
        (f"sentinel://127.0.0.1:{free_port()}/0?master_name={NAME}", "none of 1 sentinels answers"),
        (f"sentinel://127.0.0.1:{pair.primary.port}/0?master_name={NAME}", "none of 1 sentinels answers"),
    ):
        settings = given(monkeypatch, url)
        with connect(settings, patient=False) as client, pytest.raises(ConfigurationError, match=said):
            check_redis(client, settings)


def test_a_redis_of_its_own_has_no_sentinels_to_be_warned_of(client: "redis.Redis") -> None:
    assert why_no_failover(client) is None


def by_command(client: "redis.Redis") -> None:
    client.set("er:x", 1)


def by_pipeline(client: "redis.Redis") -> None:
    with client.pipeline(transaction=False) as pipeline:
        pipeline.get("er:x")
        pipeline.set("er:x", 1)
        pipeline.execute(raise_on_error=False)


def by_transaction(client: "redis.Redis") -> None:
    client.transaction(lambda pipeline: (pipeline.multi(), pipeline.set("er:x", 1)), "er:y")


def by_script(client: "redis.Redis") -> None:
    Scripts(client)("seen", "me", "{}", 1000)
    client.set("er:x", 1)


@pytest.mark.parametrize("write", [by_command, by_pipeline, by_transaction, by_script])
def test_no_client_stays_with_a_primary_that_became_a_replica(
    pair: Pair, settings: Settings, write: Callable[["redis.Redis"], None]
) -> None:
    with connect(settings) as client, connect_blocking_recorder(settings) as another:
        for one in (client, another):
            write(one)
            one.delete("er:x")
        pair.move()
        for one in (client, another):
            write(one)
            with redis.Redis(port=pair.primary.port) as primary:
                assert primary.getdel("er:x") == b"1"


def test_celery_does_not_stay_with_a_primary_that_became_a_replica(pair: Pair, settings: Settings) -> None:
    app = make_app(settings)
    with app.connection_for_write() as connection:
        for _ in range(2):
            app.send_task("tasks.process", ["acme"], connection=connection, retry=True)
            with redis.Redis(port=pair.primary.port) as primary:
                assert primary.llen("examrelay") == 1
                primary.delete("examrelay")
            pair.move()


def test_a_server_that_lacks_replicas_is_left_for_the_primary(pair: Pair, settings: Settings) -> None:
    with connect(settings) as client:
        client.set("er:x", 1)
        former = pair.move(demote=False)
        with redis.Redis(port=former.port) as stale:
            stale.config_set("min-replicas-to-write", 1)
            client.set("er:x", 2)
            assert stale.get("er:x") == b"1"


def test_a_connection_that_is_cut_off_while_it_reads_gives_no_answer_to_the_next_command(settings: Settings) -> None:
    class TimeLimit(Exception):
        pass

    def over(*_: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, over)
    try:
        with connect(settings) as client:
            client.ping()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(TimeLimit):
                client.blpop(["er:nothing"], timeout=0.4)
            assert client.echo("mine") == b"mine"
    finally:
        signal.signal(signal.SIGALRM, before)


def record(recorder: Recorder, body: bytes) -> Coroutine[Any, Any, Receipt]:
    return recorder.record("acme", f"evt_{body.decode()}", Source.CERTIVERSE, "", body, "")


def with_recorder(settings: Settings, steps: Callable[[Recorder], Coroutine[Any, Any, None]]) -> None:
    """Run steps while a recorder looks every second, as the receiver's does."""

    async def run() -> None:
        async with connect_recorder(settings) as client:
            recorder = Recorder(client, settings)
            watching = asyncio.create_task(recorder.watch(Presence(Process("web", "web@here", "x"))))
            try:
                await recorder._look()
                await steps(recorder)
            finally:
                while not watching.done():  # Python 3.11's `wait_for`, in redis-py, may swallow a cancellation
                    watching.cancel()
                    await asyncio.wait([watching], timeout=0.5)

    asyncio.run(run())


async def accepted(recorder: Recorder, body: bytes, seconds: float) -> None:
    """Try until it is accepted, as a platform does. Every answer comes within a second."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        try:
            await record(recorder, body)
        except LedgerUnavailable:
            assert time.monotonic() < deadline
        else:
            return
        finally:
            assert time.monotonic() - began < 1
        await asyncio.sleep(0.02)


def kept(server_port: int) -> list[bytes]:
    with redis.Redis(port=server_port) as client:
        return sorted(client.zrange("er:acme:events", 0, -1))


@pytest.mark.parametrize("how", ["demoted", "stale", "frozen", "dead"])
def test_the_receiver_goes_to_the_new_primary_and_gives_it_what_it_lacks(
    pair: Pair, settings: Settings, how: str
) -> None:
    """`stale`: the former primary goes on taking results of which the new one never hears."""

    async def steps(recorder: Recorder) -> None:
        await record(recorder, b"before")
        await asyncio.gather(*(record(recorder, f"at-once-{number}".encode()) for number in range(8)))
        if how == "frozen":
            pair.primary.pause()
            await asyncio.gather(*(refused(recorder, f"frozen-{number}".encode()) for number in range(8)))
        former = pair.move(demote=how == "demoted") if how != "frozen" else pair.move(demote=False)
        if how == "dead":
            former.stop(signal.SIGKILL)
        if how == "stale":
            await record(recorder, b"to-the-stale-one")
            assert b"evt_to-the-stale-one" in kept(former.port)
        await accepted(recorder, b"after", 5)
        wanted = {b"evt_before", b"evt_after", *(f"evt_at-once-{number}".encode() for number in range(8))}
        wanted |= {b"evt_to-the-stale-one"} if how == "stale" else set()
        await until(lambda: set(kept(pair.primary.port)) >= wanted)
        with redis.Redis(port=pair.primary.port) as client:
            await until(lambda: takeovers(client))
            assert ("it lacked 0 of the last" in takeovers(client)[0]) == (how != "stale")

    with_recorder(settings, steps)


async def refused(recorder: Recorder, body: bytes) -> None:
    began = time.monotonic()
    with pytest.raises(LedgerUnavailable):
        await record(recorder, body)
    assert time.monotonic() - began < 1


async def until(look: Callable[[], Any]) -> None:
    """As `wait_until`, while the loop goes on."""
    deadline = time.monotonic() + 10
    while not look():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_a_receiver_that_was_started_since_says_that_it_remembers_nothing(pair: Pair, settings: Settings) -> None:
    pair.move()

    async def steps(_: Recorder) -> None:
        with redis.Redis(port=pair.primary.port) as client:
            await until(lambda: takeovers(client))
            assert "no receiver remembers" in takeovers(client)[0]

    with_recorder(settings, steps)


def test_a_call_under_way_to_a_former_primary_leaves_no_connection_to_it(pair: Pair, settings: Settings) -> None:
    async def run() -> None:
        async with connect_recorder(settings) as client:
            waiting = asyncio.create_task(client.blpop(["er:nothing"], timeout=1))
            with redis.Redis(port=pair.primary.port) as primary:
                await until(lambda: primary.info("clients")["blocked_clients"] == 1)
            pair.move(demote=False)
            await waiting
            await client.set("er:x", 1)

    asyncio.run(run())
    with redis.Redis(port=pair.primary.port) as primary:
        assert primary.get("er:x") == b"1"


def test_the_receiver_tries_again_at_once_where_a_replica_refuses(pair: Pair, settings: Settings) -> None:
    async def run() -> None:
        async with connect_recorder(settings) as client:
            await client.set("er:x", 1)
            pair.move()
            await client.set("er:x", 2)

    asyncio.run(run())
    with redis.Redis(port=pair.primary.port) as primary:
        assert primary.get("er:x") == b"2"


@pytest.mark.parametrize("demote", [True, False])
def test_enqueue_goes_to_the_new_primary(pair: Pair, settings: Settings, demote: bool) -> None:
    numbers = count()
    with connect_blocking_recorder(settings) as client:
        recorder = BlockingRecorder(client, settings)
        for _ in range(2):
            wait_until(lambda: tried(recorder, next(numbers)) in kept(pair.primary.port), 5, "a receipt")
            pair.move(demote=demote)


def tried(recorder: BlockingRecorder, number: int) -> bytes:
    """The id of the event that was recorded, if one was."""
    try:
        return recorder.record("acme", f"evt_{number}", Source.CERTIVERSE, "", b"{}", "").id.encode()
    except LedgerUnavailable:
        return b""
