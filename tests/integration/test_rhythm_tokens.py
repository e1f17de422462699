"""OAuth tokens are bought once, shared, renewed in time, and never bought in a loop."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import pytest
import requests

from sandbox.control import Sandbox, start
from tests.integration.rhythm_peer import TENANT, ProcessTokens, answer, connection, free, peer, registration
from worker.remote import RhythmConnection
from worker.rhythm.client import Rhythm
from worker.rhythm.failures import CredentialsRefused, RhythmThrottled, RhythmUnavailable
from worker.rhythm.transport import open_session


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def stand_in() -> Iterator[Sandbox]:
    with start() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(stand_in: Sandbox) -> Sandbox:
    stand_in.reset()
    stand_in.seed(TENANT, [registration("reg-1")])
    return stand_in


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with open_session() as session:
        yield session


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens() -> ProcessTokens:
    return ProcessTokens()


def oauth(url: str, domain: str | None = None, secret: str = "SECRET") -> RhythmConnection:
    credentials = {
        "kind": "oauth",
        "domain": domain or url,
        "client_id": "sandbox-client",
        "client_secret": f"env:{secret}",
    }
    return connection(url, credentials=credentials)


def bought(sandbox: Sandbox) -> int:
    return int(sandbox.counts()["tokens"])


def test_one_token_serves_all_calls_of_all_who_share_the_store(
    sandbox: Sandbox, session: requests.Session, clock: Clock, tokens: ProcessTokens
) -> None:
    for _ in range(3):
        rhythm = Rhythm(oauth(sandbox.url), session, free, tokens, clock)
        assert rhythm.get("reg-1") is not None
        assert rhythm.get("reg-1") is not None
    assert bought(sandbox) == 1


def test_the_token_request_is_a_form_and_takes_no_token_at_the_gate(session: requests.Session, clock: Clock) -> None:
    taken: list[int] = []
    with peer(answer(body='{"access_token": "abc"}'), answer(body='{"id": "reg-1"}')) as server:
        rhythm = Rhythm(oauth(server.url), session, lambda: taken.append(len(server.requests)), ProcessTokens(), clock)
        assert rhythm.get("reg-1") is not None
        request, call = (request.decode() for request in server.requests)
    assert request.startswith("POST /oauth/token HTTP/1.1\r\n")
    assert "Content-Type: application/x-www-form-urlencoded" in request
    assert parse_qs(request.partition("\r\n\r\n")[2]) == {
        "grant_type": ["client_credentials"],
        "client_id": ["sandbox-client"],
        "client_secret": ["sandbox-secret"],
        "audience": ["https://api.rhythmsoftware.com"],
    }
    assert "Authorization: Bearer abc" in call
    assert taken == [1]


@pytest.mark.parametrize(("age", "count"), [(timedelta(hours=23, minutes=54), 1), (timedelta(hours=23, minutes=55), 2)])
def test_a_token_is_used_until_five_minutes_before_it_expires(
    age: timedelta, count: int, sandbox: Sandbox, session: requests.Session, clock: Clock, tokens: ProcessTokens
) -> None:
    rhythm = Rhythm(oauth(sandbox.url), session, free, tokens, clock)
    rhythm.get("reg-1")
    clock.now += age
    rhythm.get("reg-1")
    assert bought(sandbox) == count


def test_a_short_lived_token_is_still_used_more_than_once(
    sandbox: Sandbox, session: requests.Session, clock: Clock, tokens: ProcessTokens
) -> None:
    sandbox.options(token_seconds=60)
    rhythm = Rhythm(oauth(sandbox.url), session, free, tokens, clock)
    for _ in range(3):
        rhythm.get("reg-1")
    assert bought(sandbox) == 1


def test_a_refused_token_is_renewed_once_and_the_call_goes_through(
    sandbox: Sandbox, session: requests.Session, clock: Clock, tokens: ProcessTokens
) -> None:
    rhythm = Rhythm(oauth(sandbox.url), session, free, tokens, clock)
    rhythm.get("reg-1")
    clock.now += timedelta(hours=5)
    sandbox.expire_tokens()
    assert rhythm.get("reg-1") is not None
    assert bought(sandbox) == 2


def test_a_token_that_is_refused_again_is_not_renewed_again(
    sandbox: Sandbox, session: requests.Session, clock: Clock, tokens: ProcessTokens
) -> None:
    rhythm = Rhythm(oauth(sandbox.url), session, free, tokens, clock)
    rhythm.get("reg-1")
    clock.now += timedelta(hours=5)
    sandbox.fault("status", kind="get", status=401, times=None)
    for _ in range(5):
        with pytest.raises(CredentialsRefused):
            rhythm.get("reg-1")
        clock.now += timedelta(minutes=10)
    assert bought(sandbox) == 2
    assert sandbox.counts()["by_kind"]["GET get"] == 1 + 2 + 4


def test_a_token_that_another_process_renewed_is_taken_from_the_store(
    sandbox: Sandbox, session: requests.Session, clock: Clock, tokens: ProcessTokens
) -> None:
    one, other = (Rhythm(oauth(sandbox.url), session, free, tokens, clock) for _ in range(2))
    one.get("reg-1")
    other.get("reg-1")
    clock.now += timedelta(hours=5)
    sandbox.expire_tokens()
    assert one.get("reg-1") is not None
    assert other.get("reg-1") is not None
    assert bought(sandbox) == 2


def test_one_buys_while_the_others_wait(
    sandbox: Sandbox, session: requests.Session, clock: Clock, tokens: ProcessTokens
) -> None:
    sandbox.fault("latency", kind="token", ms=100, times=None)
    start_line, found = threading.Barrier(8), []

    def run() -> None:
        rhythm = Rhythm(oauth(sandbox.url), session, free, tokens, clock)
        start_line.wait()
        found.append(rhythm.get("reg-1"))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [registration is not None for registration in found] == [True] * 8
    assert bought(sandbox) == 1


def test_a_new_secret_does_not_use_the_old_ones_token(
    sandbox: Sandbox, session: requests.Session, clock: Clock, tokens: ProcessTokens
) -> None:
    Rhythm(oauth(sandbox.url), session, free, tokens, clock).get("reg-1")
    with pytest.raises(CredentialsRefused):
        Rhythm(oauth(sandbox.url, secret="WRONG"), session, free, tokens, clock).get("reg-1")


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refused_token_request_is_refused_credentials(status: int, session: requests.Session, clock: Clock) -> None:
    with peer(answer(status, '{"error": "access_denied"}')) as server:
        rhythm = Rhythm(oauth(server.url), session, free, ProcessTokens(), clock)
        with pytest.raises(CredentialsRefused) as caught:
            rhythm.patch("reg-1", [])
        assert len(server.requests) == 1
    assert (caught.value.maybe_applied, caught.value.status) == (False, status)
    assert "token request" in caught.value.detail


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (429, "{}", RhythmThrottled),
        (503, "{}", RhythmUnavailable),
        (302, "{}", RhythmUnavailable),
        (200, "<html>", RhythmUnavailable),
        (200, "{}", RhythmUnavailable),
        (200, '{"access_token": ""}', RhythmUnavailable),
        (200, '{"access_token": "a\\nb"}', RhythmUnavailable),
        (200, '{"access_token": "a", "expires_in": 0}', RhythmUnavailable),
    ],
)
def test_a_token_endpoint_that_gives_no_token_leaves_the_write_unsent(
    status: int, body: str, error: type[RhythmUnavailable], session: requests.Session, clock: Clock
) -> None:
    with peer(answer(status, body)) as server:
        rhythm = Rhythm(oauth(server.url), session, free, ProcessTokens(), clock)
        with pytest.raises(error) as caught:
            rhythm.patch("reg-1", [])
        assert len(server.requests) == 1
    assert not caught.value.maybe_applied


def test_a_domain_is_reached_over_https(session: requests.Session, clock: Clock) -> None:
    with peer(answer(), mute=True) as server:
        domain = server.url.removeprefix("http://")
        rhythm = Rhythm(oauth("https://127.0.0.1:1", domain), session, free, ProcessTokens(), clock)
        with pytest.raises(RhythmUnavailable, match="no connection for the token request"):
            rhythm.get("reg-1")
        assert server.connections == 1
