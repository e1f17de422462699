"""Rhythm behind an egress proxy and a private authority: a real CONNECT proxy, real TLS, the stand-in behind both."""

import threading
import time
import traceback
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import redis
import requests

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from schemas.rhythm import PatchOperation
from tests import events
from tests.connecting import Act, ConnectProxy, connect_proxy
from tests.integration.rhythm_peer import (
    KEY,
    TENANT,
    Play,
    connection,
    peer,
    registration,
    rhythm_at,
    say,
    silence,
    trickle,
)
from tests.pipeline import ORG, Pipeline, pipeline_at
from tests.tls import Authority, TlsFront, tls_front
from worker.rhythm.failures import RhythmUnavailable
from worker.rhythm.transport import open_session

SCORE = [PatchOperation(op="add", path="/score", value=Decimal("70.1"))]
#: A user and a password with characters that a URL, a header and Latin-1 have trouble with.
LOGIN = "relay:p/?#@% €"
ENCODED = quote("relay") + ":" + quote("p/?#@% €", safe="")
#: Deadline of calls that are to be cut, and by when the call must have ended on a machine that is busy.
SECONDS, AT_MOST = 0.3, 3.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def front(rhythm: Sandbox, authority: Authority) -> Iterator[TlsFront]:
    """The stand-in behind TLS, its certificate signed by an authority that nobody else knows."""
    rhythm.seed(TENANT, [registration("reg-1")])
    with tls_front(urlsplit(rhythm.url).port or 0, authority.sign("rhythm", "127.0.0.1")) as front:
        yield front


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with open_session() as session:
        yield session


def through(front: TlsFront, proxy: str, **settings: Any) -> Any:
    return connection(f"https://127.0.0.1:{front.port}", proxy=f"http://{proxy}", **settings)


def failure(settings: Any, session: requests.Session) -> RhythmUnavailable:
    with pytest.raises(RhythmUnavailable) as caught:
        rhythm_at(settings, session).patch("reg-1", SCORE)
    assert caught.value.reason is Reason.RHYTHM_UNAVAILABLE
    return caught.value


def test_every_call_and_the_token_go_through_the_proxy_to_a_private_authority(
    rhythm: Sandbox, front: TlsFront, authority: Authority, session: requests.Session, tmp_path: Path
) -> None:
    url = f"https://127.0.0.1:{front.port}"
    secret = tmp_path / "proxy"
    credentials = {"kind": "oauth", "domain": url, "client_id": "sandbox-client", "client_secret": "env:SECRET"}
    with connect_proxy(LOGIN) as proxy:
        secret.write_text(f"http://{ENCODED}@{proxy.address}\n")
        settings = connection(url, proxy=f"file:{secret}", ca_file=str(authority.file), credentials=credentials)
        way = rhythm_at(settings, session)
        assert way.get("reg-1") is not None
        assert way.patch("reg-1", SCORE).score == Decimal("70.1")
        assert way.search(ids=["reg-1"])
        assert rhythm.counts()["tokens"] == 1
        assert [line.split("\r\n")[0] for line in proxy.asked] == [f"CONNECT 127.0.0.1:{front.port} HTTP/1.0"]
        assert b"Bearer" in front.heard
        assert b"Proxy-Authorization" not in front.heard
        assert b"Bearer" not in proxy.passed
        assert "€" not in repr(settings) + str(settings)


def test_a_server_that_the_authority_did_not_sign_hears_nothing(
    front: TlsFront, tmp_path: Path, session: requests.Session
) -> None:
    other = Authority(tmp_path, "another")
    with connect_proxy() as proxy:
        for more in ({}, {"ca_file": str(other.file)}):
            for settings in (
                through(front, proxy.address, **more),
                connection(f"https://127.0.0.1:{front.port}", **more),
            ):
                error = failure(settings, session)
                assert "certificate" in error.detail
                assert not error.maybe_applied
    assert front.heard == b""


def test_an_authority_counts_in_place_of_the_public_ones_and_for_its_tenant_alone(
    front: TlsFront, authority: Authority, session: requests.Session
) -> None:
    url = f"https://127.0.0.1:{front.port}"
    settings = connection(url, ca_file=str(authority.file))
    assert rhythm_at(settings, session).get("reg-1") is not None
    assert "certificate" in failure(connection(url), session).detail
    authority.file.unlink()
    gone = failure(settings, session)
    assert not gone.maybe_applied
    assert "authorities' certificates has gone" in gone.detail


REDIRECT = say(b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (say(b"HTTP/1.1 403 Not MARKED\r\n\r\n"), "the proxy answers 403"),
        (say(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), "the proxy answers 502"),
        (REDIRECT, "the proxy answers 302"),
        (say(b"MARKED nonsense\r\n\r\n", close=True), "no connection through the proxy"),
        (say(b"", close=True), "no connection through the proxy"),
        (silence, "no connection through the proxy"),
        (trickle(b"HTTP/1.1 200 OK\r\nX: ", b"x"), "no connection through the proxy"),
        (say(b"HTTP/1.1 200 Connected\r\n\r\nnot TLS"), "no connection through the proxy"),
    ],
    ids=["403", "502", "redirect", "nonsense", "hangs up", "hangs", "trickles", "no TLS behind it"],
)
def test_a_proxy_that_does_not_connect_is_an_outage_and_nothing_was_written(
    act: Play, said: str, rhythm: Sandbox, front: TlsFront, session: requests.Session
) -> None:
    with connect_proxy(act=act) as proxy:
        began = time.monotonic()
        error = failure(through(front, proxy.address, timeout_seconds=SECONDS), session)
        assert time.monotonic() - began < AT_MOST
    assert said in error.detail
    assert (error.maybe_applied, error.status) == (False, None)
    assert (front.heard, rhythm.counts()["calls"]) == (b"", 0)
    assert "MARKED" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("fault", ["down", "wrong password", "no password"])
def test_a_proxy_that_is_down_or_refuses_our_login_is_an_outage_that_tells_no_password(
    fault: str, front: TlsFront, session: requests.Session, tmp_path: Path
) -> None:
    with connect_proxy(LOGIN) as proxy:
        if fault == "down":
            proxy.close()
        secret = tmp_path / "proxy"
        secret.write_text(f"http://{'' if fault == 'no password' else 'relay:hunter2@'}{proxy.address}")
        error = failure(connection(f"https://127.0.0.1:{front.port}", proxy=f"file:{secret}"), session)
    assert ("refused" if fault == "down" else "the proxy answers 407") in error.detail
    assert not error.maybe_applied
    told = "".join(traceback.format_exception(error))
    assert "hunter2" not in told
    assert "MARKED" not in told
    assert front.heard == b""


def late(seconds: float) -> Act:
    """The proxy takes its time, then connects to somebody who says nothing."""

    def act(client: Any, over: threading.Event) -> None:
        over.wait(seconds)
        client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        over.wait()

    return act


def test_a_call_has_one_deadline_for_the_proxy_the_handshake_and_the_answer(
    front: TlsFront, session: requests.Session
) -> None:
    with connect_proxy(act=late(1.2)) as proxy:
        began = time.monotonic()
        failure(through(front, proxy.address, timeout_seconds=1.5), session)
        assert 1.4 < time.monotonic() - began < 2.4


def test_a_peer_that_trickles_behind_a_proxy_is_cut_at_the_deadline(
    authority: Authority, session: requests.Session
) -> None:
    with (
        peer(trickle(b"HTTP/1.1 200 OK\r\nX: ", b"x")) as server,
        tls_front(urlsplit(server.url).port or 0, authority.sign("rhythm", "127.0.0.1")) as front,
        connect_proxy() as proxy,
    ):
        began = time.monotonic()
        settings = through(front, proxy.address, ca_file=str(authority.file), timeout_seconds=1)
        error = failure(settings, session)
        assert 0.9 < time.monotonic() - began < AT_MOST
    assert error.maybe_applied
    assert "within 1 s" in error.detail


def refused(proxy: ConnectProxy) -> None:
    proxy.act = say(b"HTTP/1.1 407 No\r\n\r\n")


def test_events_wait_for_the_proxy_and_spend_no_attempt(
    client: "redis.Redis", rhythm: Sandbox, front: TlsFront, authority: Authority, tmp_path: Path
) -> None:
    rhythm.seed(ORG, [events.registration()])
    behind = Sandbox(f"https://127.0.0.1:{front.port}")
    with connect_proxy() as proxy:
        way = f'proxy = "http://{proxy.address}"\nca_file = "{authority.file}"'
        with pipeline_at(tmp_path, behind, rhythm=way) as pipeline:
            refused(proxy)
            waiting = pipeline.run(events.certiverse())[0]
            assert (waiting.state, waiting.attempts) == (EventState.READY, 0)
            assert client.hget("er:acme:gate", "reason") == b"rhythm_unavailable"
            proxy.act = None
            reopened(pipeline)
            pipeline.sync()
            assert pipeline.event(waiting.id).state is EventState.SYNCED
            assert rhythm.counts()["writes"] == 1
            assert KEY.encode() in front.heard


def reopened(pipeline: Pipeline) -> None:
    pipeline.services.redis.delete("er:acme:gate")
    pipeline.due_now()
