"""Every part of ours gets into Redis by the same REDIS_URL, or none does: commands, receiver, Celery, Flower."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from flower.utils.broker import Broker

from tests.running import Valkey, process
from tests.tenants import ENVIRON, write_tenants
from tests.tls import Authority, TlsFront, tls_front
from worker.celery import make_app
from worker.ledger.client import connect, connect_blocking_recorder, connect_recorder
from worker.settings import Settings, load_settings

HARD = "p/?#@:% é[x];&=+"
Part = Callable[[Settings], Any]


def by_command(settings: Settings) -> Any:
    with connect(settings, patient=False) as client:
        client.set("er:seen", "by a command")


def by_receiver(settings: Settings) -> Any:
    async def come_in() -> None:
        async with connect_recorder(settings) as client:
            await client.set("er:seen", "by the receiver")

    asyncio.run(come_in())


def by_celery(settings: Settings) -> Any:
    with make_app(settings).connection_for_write() as connection:
        connection.channel().client.set("er:seen", "by Celery")


def by_flower(settings: Settings) -> Any:
    """Its broker page, asked as its view asks."""
    app = make_app(settings)
    with app.connection() as connection:
        broker = Broker(
            connection.as_uri(include_password=True),
            broker_options=app.conf.broker_transport_options,
            broker_use_ssl=app.conf.broker_use_ssl,
        )
    assert asyncio.run(broker.queues(["examrelay"])) == [{"name": "examrelay", "messages": 1}]


def by_enqueue(settings: Settings) -> Any:
    with connect_blocking_recorder(settings) as client:
        client.set("er:seen", "by enqueue")


PARTS = (by_command, by_receiver, by_enqueue, by_celery, by_flower)


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    """One that asks for a password, on IPv6 too, with a hint in database 3."""
    server = Valkey(bind="127.0.0.1 ::1").start()
    with redis.Redis.from_url(server.url.replace("/0", "/3")) as client:
        client.lpush("examrelay", "a hint")
        client.acl_setuser("relay?", enabled=True, passwords=[f"+{HARD}"], keys=["*"], commands=["+@all"])
        client.config_set("requirepass", HARD)
    yield server
    server.close()


def given(monkeypatch: pytest.MonkeyPatch, url: str) -> Settings:
    monkeypatch.setenv("REDIS_URL", url)
    return load_settings()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("user", ["", "default", "relay%3F"])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_every_part_logs_in(monkeypatch: pytest.MonkeyPatch, server: Valkey, part: Part, user: str, host: str) -> None:
    part(given(monkeypatch, f"redis://{user}:{quote(HARD, safe='')}@{host}:{server.port}/3"))


@pytest.mark.parametrize("part", PARTS)
def test_a_wrong_password_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch, server: Valkey, part: Part) -> None:
    with pytest.raises(Exception, match="invalid username-password pair") as caught:
        part(given(monkeypatch, f"redis://:hunter2@127.0.0.1:{server.port}/3"))
    assert "hunter2" not in "".join(
        str(error) for error in (caught.value, caught.value.__cause__, caught.value.__context__)
    )


CELERY = ("-m", "celery", "-A", "worker.celery")
ENQUEUE = "from worker import enqueue; enqueue('acme', 'certiverse', '{}')"


@pytest.mark.parametrize(
    ("url", "said", "starts"),
    [
        (
            "redis://relay:hunter2@127.0.0.1:PORT/3",
            "invalid username-password pair",
            [("-m", "worker", "check"), ("-m", "worker.receiver"), (*CELERY, "worker", "-P", "solo")],
        ),
        (
            "redis://127.0.0.1:PORT/0?username=relay&password=hunter2",
            "REDIS_URL may have these options behind its ?",
            [("-c", ENQUEUE), (*CELERY, "flower")],
        ),
    ],
    ids=["wrong password", "password behind the ?"],
)
def test_each_start_says_why_in_one_line_and_nothing_of_the_password(
    server: Valkey, tmp_path: Path, url: str, said: str, starts: list[tuple[str, ...]]
) -> None:
    environ = ENVIRON | {
        "EXAMRELAY_CONFIG": str(write_tenants(tmp_path, "http://127.0.0.1:1")),
        "REDIS_URL": url.replace("PORT", str(server.port)),
    }
    with contextlib.ExitStack() as stack:
        logs = [tmp_path / f"{number}.log" for number in range(len(starts))]
        started = [
            stack.enter_context(process(*one, environ=environ, log=log)) for one, log in zip(starts, logs, strict=True)
        ]
        for one, ending, log in zip(starts, started, logs, strict=True):
            assert ending.wait(30) != 0, one
            told = log.read_text()
            assert said in told, one
            assert "hunter2" not in told, one
            assert ENQUEUE in one or "Traceback" not in told, one


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def front(valkey: Valkey, client: "redis.Redis", authority: Authority) -> Iterator[TlsFront]:
    """TLS in front of a Redis, for 127.0.0.1 and not for localhost."""
    client.lpush("examrelay", "a hint")
    with tls_front(valkey.port, authority.sign("server", "127.0.0.1")) as front:
        yield front


@pytest.mark.parametrize("part", PARTS)
def test_a_certificate_of_ones_own_authority_is_taken(
    monkeypatch: pytest.MonkeyPatch, front: TlsFront, authority: Authority, part: Part
) -> None:
    part(given(monkeypatch, f"rediss://127.0.0.1:{front.port}/0?ssl_ca_certs={authority.file}"))
    assert front.heard


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false&ssl_ca_certs="])
def test_less_is_verified_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, front: TlsFront, authority: Authority, part: Part, option: str
) -> None:
    option += str(authority.file) if option.endswith("=") else ""
    part(given(monkeypatch, f"rediss://localhost:{front.port}/0?{option}"))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("fault", ["nobody's", "wrong host"])
def test_an_unverified_server_hears_no_password(
    monkeypatch: pytest.MonkeyPatch, front: TlsFront, authority: Authority, part: Part, fault: str
) -> None:
    host = "localhost" if fault == "wrong host" else "127.0.0.1"
    options = f"?ssl_ca_certs={authority.file}" if fault == "wrong host" else ""
    url = f"rediss://relay:hunter2@{host}:{front.port}/0{options}"
    with pytest.raises(Exception, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed") as caught:
        part(given(monkeypatch, url))
    assert "hunter2" not in str(caught.value)
    assert front.heard == b""


@pytest.mark.parametrize("part", PARTS)
def test_every_part_shows_its_client_certificate_and_is_let_in_by_it_alone(
    monkeypatch: pytest.MonkeyPatch, valkey: Valkey, client: "redis.Redis", authority: Authority, part: Part
) -> None:
    """As `tls-auth-clients yes` wants it. tests/acceptance/test_accounts.py runs all processes so."""
    client.lpush("examrelay", "a hint")
    certificate, key = authority.sign("client")
    with tls_front(valkey.port, authority.sign("server", "127.0.0.1"), clients=authority.file) as front:
        verified = f"rediss://127.0.0.1:{front.port}/0?ssl_ca_certs={authority.file}"
        part(given(monkeypatch, f"{verified}&ssl_certfile={certificate}&ssl_keyfile={key}"))
        assert front.heard
        front.heard.clear()
        with pytest.raises(Exception, match=r"(?i)certificate.required|connection|closed|broken pipe|EOF"):
            part(given(monkeypatch, verified))
        assert front.heard == b""
