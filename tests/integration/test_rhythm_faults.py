"""Each way in which a call to Rhythm can fail: over HTTP against the stand-in, and against peers on raw sockets."""

import gzip
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import requests

from sandbox.control import Sandbox, start
from schemas.event import Reason
from schemas.rhythm import PatchOperation
from tests.integration.rhythm_peer import (
    TENANT,
    Play,
    answer,
    connection,
    head,
    peer,
    registration,
    rhythm_at,
    say,
    silence,
    trickle,
)
from worker.rhythm.client import Rhythm
from worker.rhythm.deadline import DEADLINE, connected
from worker.rhythm.failures import CredentialsRefused, RhythmThrottled, RhythmUnavailable
from worker.rhythm.transport import open_session

SCORE = [PatchOperation(op="add", path="/score", value=Decimal("70.1"))]
RECORD = b'{"id": "reg-1", "exam_id": "exam-1"}'
#: Deadline of calls that are to be cut, and by when the call must have ended on a machine that is busy.
SECONDS, AT_MOST = 0.3, 3.0


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


def calls(rhythm: Rhythm) -> dict[str, Any]:
    """Every kind of call, by what the stand-in calls it."""
    return {
        "get": lambda: rhythm.get("reg-1"),
        "search": lambda: rhythm.search(ids=["reg-1"]),
        "student_exam": lambda: rhythm.student_exam("student-1", "exam-1"),
        "patch": lambda: rhythm.patch("reg-1", SCORE),
        "batch": lambda: rhythm.batch({"reg-1": SCORE}),
    }


WRITES = {"patch", "batch"}
CALLS = ["get", "search", "student_exam", "patch", "batch"]


def failure(rhythm: Rhythm, kind: str) -> RhythmUnavailable:
    with pytest.raises(RhythmUnavailable) as caught:
        calls(rhythm)[kind]()
    assert caught.value.reason is Reason.RHYTHM_UNAVAILABLE
    return caught.value


# what the stand-in does


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("status", [301, 408, 500, 503])
def test_an_answer_that_does_not_settle_anything_is_unavailable(
    status: int, kind: str, sandbox: Sandbox, session: requests.Session
) -> None:
    sandbox.fault("status", kind=kind, status=status, headers={"Retry-After": "7", "Location": sandbox.url})
    error = failure(rhythm_at(connection(sandbox.url), session), kind)
    assert (error.status, error.retry_after) == (status, timedelta(seconds=7))
    assert error.maybe_applied is (kind in WRITES)
    assert sandbox.counts()["calls"] == 1
    assert ("redirect" in error.detail) is (status == 301)


@pytest.mark.parametrize("kind", CALLS)
def test_a_throttled_call_was_not_processed_and_says_when(
    kind: str, sandbox: Sandbox, session: requests.Session
) -> None:
    sandbox.options(rate_limit={"calls_per_second": 0.01, "retry_after": "seconds"})
    rhythm = rhythm_at(connection(sandbox.url), session)
    rhythm.get("reg-1")
    with pytest.raises(RhythmThrottled) as caught:
        calls(rhythm)[kind]()
    assert caught.value.retry_after is not None
    assert timedelta(seconds=90) < caught.value.retry_after <= timedelta(seconds=100)
    assert not caught.value.maybe_applied


def test_a_throttled_call_may_say_a_date_or_nothing(sandbox: Sandbox, session: requests.Session) -> None:
    waits = []
    for form in ("date", "none"):
        sandbox.reset()
        sandbox.options(rate_limit={"calls_per_second": 0.01, "retry_after": form})
        rhythm = rhythm_at(connection(sandbox.url), session)
        rhythm.get("reg-1")
        with pytest.raises(RhythmThrottled) as caught:
            rhythm.get("reg-1")
        waits.append(caught.value.retry_after)
    assert waits[0] is not None
    assert timedelta(seconds=90) < waits[0] <= timedelta(seconds=101)
    assert waits[1] is None


@pytest.mark.parametrize("kind", CALLS)
def test_an_unknown_key_and_another_ones_tenant_are_refused_credentials(
    kind: str, sandbox: Sandbox, session: requests.Session
) -> None:
    wrong = connection(sandbox.url, credentials={"kind": "api_key", "key": "env:WRONG"})
    sandbox.options(api_keys={"sandbox-key": "someone-else"})
    for settings, status in ((wrong, 401), (connection(sandbox.url), 403)):
        with pytest.raises(CredentialsRefused) as caught:
            calls(rhythm_at(settings, session))[kind]()
        assert (caught.value.status, caught.value.maybe_applied) == (status, False)


@pytest.mark.parametrize("kind", CALLS)
def test_a_connection_that_is_reset_is_unavailable(kind: str, sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.fault("reset", kind=kind)
    error = failure(rhythm_at(connection(sandbox.url), session), kind)
    assert (error.maybe_applied, error.status) == (kind in WRITES, None)
    assert "the connection broke" in error.detail
    assert sandbox.counts()["calls"] == 1


@pytest.mark.parametrize("kind", ["patch", "batch"])
def test_a_write_whose_reply_is_lost_may_have_been_applied(
    kind: str, sandbox: Sandbox, session: requests.Session
) -> None:
    sandbox.fault("apply_then_lose", kind=kind)
    assert failure(rhythm_at(connection(sandbox.url), session), kind).maybe_applied
    truth = sandbox.registration(TENANT, "reg-1")
    assert truth is not None
    assert truth["score"] == 70.1


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_that_hangs_ends_at_the_deadline(kind: str, sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.fault("hang", kind=kind)
    began = time.monotonic()
    error = failure(rhythm_at(connection(sandbox.url, timeout_seconds=SECONDS), session), kind)
    assert SECONDS <= time.monotonic() - began < AT_MOST
    assert error.maybe_applied is (kind in WRITES)
    assert "within 0.3 s" in error.detail


def test_the_next_call_has_a_whole_deadline_again(sandbox: Sandbox, session: requests.Session) -> None:
    rhythm = rhythm_at(connection(sandbox.url, timeout_seconds=1.1), session)
    for _ in range(2):
        sandbox.fault("latency", kind="get", ms=600)
        assert rhythm.get("reg-1") is not None


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("body", ["", "<html>", '{"message": "Internal error"}', '{"Items": 3}', "[3]", "null", '"x"'])
def test_an_answer_that_is_not_what_was_asked_for_is_unavailable(
    body: str, kind: str, session: requests.Session
) -> None:
    with peer(answer(body=body)) as server:
        rhythm = rhythm_at(connection(server.url), session)
        if kind == "batch" and body.startswith("{"):  # it says nothing about the operation, and so does the result
            assert rhythm.batch({"reg-1": SCORE})["reg-1"].state == "unknown"
            return
        error = failure(rhythm, kind)
    assert error.maybe_applied is (kind in WRITES)
    assert "cannot be read" in error.detail


# what only a raw socket does


@pytest.mark.parametrize("kind", ["get", "patch"])
@pytest.mark.parametrize(
    "play",
    [
        silence,
        trickle(b"H", b"T"),
        trickle(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        trickle(head(Content_Length="1000") + b"{"),
        trickle(head(Transfer_Encoding="chunked"), b"1\r\n \r\n"),
        trickle(head() + b"{"),
    ],
    ids=["silence", "status line", "header", "body", "chunks", "body without length"],
)
def test_a_peer_that_trickles_is_cut_at_the_deadline(play: Play, kind: str, session: requests.Session) -> None:
    with peer(play) as server:
        began = time.monotonic()
        error = failure(rhythm_at(connection(server.url, timeout_seconds=SECONDS), session), kind)
        assert SECONDS <= time.monotonic() - began < AT_MOST
    assert "within 0.3 s" in error.detail
    assert error.maybe_applied is (kind == "patch")


def test_a_peer_that_reads_no_more_of_a_request_is_cut_at_the_deadline(session: requests.Session) -> None:
    large = [PatchOperation(op="add", path="/notes", value="x" * 32 * 2**20)]
    with peer(silence, mute=True) as server:
        rhythm = rhythm_at(connection(server.url, timeout_seconds=SECONDS), session)
        began = time.monotonic()
        with pytest.raises(RhythmUnavailable, match=r"within 0\.3 s") as caught:
            rhythm.patch("reg-1", large)
        assert SECONDS <= time.monotonic() - began < AT_MOST
    assert caught.value.maybe_applied


def answer_then_deaf(accepted: socket.socket, over: threading.Event) -> None:
    answer(body=RECORD)(accepted, over)
    over.wait()


def test_sending_gets_the_time_that_is_left_and_not_the_whole_timeout_again(session: requests.Session) -> None:
    """As after a slow handshake, which has used up nearly all of the time."""
    with peer(answer_then_deaf) as server:
        DEADLINE.set(time.monotonic() + AT_MOST)
        session.get(server.url)
        began = time.monotonic()
        DEADLINE.set(began + SECONDS)
        with pytest.raises(requests.RequestException):
            session.post(server.url, b"x" * 32 * 2**20, timeout=AT_MOST * 2)
        assert SECONDS <= time.monotonic() - began < AT_MOST
        assert server.connections == 1


@pytest.mark.parametrize(
    "play",
    [
        say(b"", close=True),
        say(b"nonsense\r\n\r\n", close=True),
        say(b"HTTP/1.1 200 OK\r\nContent-Le", close=True),
        say(head(Content_Length="100") + RECORD, close=True),
        say(head(Transfer_Encoding="chunked") + b"5\r\n{", close=True),
        say(head(Transfer_Encoding="chunked") + b"zz\r\n", close=True),
        answer(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
        answer(body=gzip.compress(RECORD, mtime=0)[:-12], headers={"Content-Encoding": "gzip"}),
    ],
    ids=["nothing", "not HTTP", "half a header", "half a body", "half a chunk", "no chunk", "not gzip", "half a gzip"],
)
def test_an_answer_that_breaks_off_is_unavailable(play: Play, session: requests.Session) -> None:
    with peer(play) as server:
        error = failure(rhythm_at(connection(server.url), session), "patch")
    assert error.maybe_applied
    assert error.status is None


def test_an_answer_that_is_too_long_is_not_read_to_its_end(session: requests.Session) -> None:
    bomb = gzip.compress(b" " * (64 * 2**20))
    with peer(answer(body=bomb, headers={"Content-Encoding": "gzip"})) as server:
        error = failure(rhythm_at(connection(server.url), session), "patch")
    assert "too long" in error.detail
    assert error.maybe_applied


def test_a_compressed_answer_is_read(session: requests.Session) -> None:
    with peer(answer(body=gzip.compress(RECORD), headers={"Content-Encoding": "gzip"})) as server:
        found = rhythm_at(connection(server.url), session).get("reg-1")
    assert found is not None
    assert found.exam_id == "exam-1"


def test_a_refusal_counts_even_when_its_body_does_not_end(session: requests.Session) -> None:
    with peer(trickle(head(429, Content_Length="1000", Retry_After="60"))) as server:
        rhythm = rhythm_at(connection(server.url, timeout_seconds=SECONDS), session)
        with pytest.raises(RhythmThrottled) as caught:
            rhythm.get("reg-1")
    assert caught.value.retry_after == timedelta(seconds=60)


def test_a_date_to_wait_for_is_measured_by_rhythms_clock(session: requests.Session) -> None:
    dates = {"Date": "Sun, 01 Mar 2009 09:00:00 GMT", "Retry-After": "Sun, 01 Mar 2009 09:00:30 GMT"}
    with peer(answer(429, headers=dates)) as server, pytest.raises(RhythmThrottled) as caught:
        rhythm_at(connection(server.url), session).get("reg-1")
    assert caught.value.retry_after == timedelta(seconds=30)


def test_a_redirect_is_not_followed(session: requests.Session) -> None:
    with peer(answer(body=RECORD)) as there, peer(answer(307, headers={"Location": there.url})) as here:
        failure(rhythm_at(connection(here.url), session), "patch")
        assert (len(here.requests), len(there.requests)) == (1, 0)


def test_one_connection_serves_all_calls_refusals_included(session: requests.Session) -> None:
    with peer(answer(body=RECORD), answer(404, "{}"), answer(500, "<html>"), answer(body=RECORD)) as server:
        rhythm = rhythm_at(connection(server.url), session)
        assert rhythm.get("reg-1") is not None
        assert rhythm.get("reg-1") is None
        failure(rhythm, "get")
        assert rhythm.get("reg-1") is not None
        assert (len(server.requests), server.connections) == (4, 1)


# no connection: certainly not applied


def test_a_refused_connection_was_not_a_write(session: requests.Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    error = failure(rhythm_at(connection(f"http://127.0.0.1:{port}"), session), "patch")
    assert not error.maybe_applied
    assert "refused" in error.detail


@pytest.mark.parametrize("host", ["x" * 64, "a..b"])
def test_a_name_that_has_no_address_was_not_a_write(host: str, session: requests.Session) -> None:
    error = failure(rhythm_at(connection(f"https://{host}"), session), "patch")
    assert not error.maybe_applied
    assert "no connection" in error.detail


def test_what_is_no_url_was_not_a_write(session: requests.Session) -> None:
    error = failure(rhythm_at(connection("https://127.0.0.1:99999"), session), "patch")
    assert not error.maybe_applied
    assert "is the url right" in error.detail


@contextmanager
def deaf(port: int = 0, host: str = "127.0.0.1") -> Iterator[int]:
    """A port whose connections are not accepted: the queue of those that wait is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server((host, port), backlog=1))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


def test_a_connection_that_is_not_accepted_ends_at_the_deadline_and_was_not_a_write(session: requests.Session) -> None:
    with deaf() as port:
        began = time.monotonic()
        settings = connection(f"http://127.0.0.1:{port}", timeout_seconds=SECONDS)
        error = failure(rhythm_at(settings, session), "patch")
        assert SECONDS * 0.9 <= time.monotonic() - began < AT_MOST
    assert not error.maybe_applied


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="127.0.0.2 is this machine on Linux only")
def test_the_addresses_of_a_host_share_the_time_and_are_tried_in_turn() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with deaf(port, "127.0.0.2"):  # and at 127.0.0.3 nobody listens
            DEADLINE.set(time.monotonic() + 1.5)
            with connected(["127.0.0.3", "127.0.0.2", "127.0.0.1"], port) as sock:
                assert sock.getpeername() == ("127.0.0.1", port)
                assert 0.2 < (sock.gettimeout() or 0) < 0.8
        DEADLINE.set(time.monotonic() + 60)
        with connected(["127.0.0.1", "127.0.0.1"], port) as sock:  # the handshake gets what is left, not a share
            assert (sock.gettimeout() or 0) > 40
    with pytest.raises(ConnectionRefusedError):
        connected(["127.0.0.3", "127.0.0.1"], port)


@pytest.mark.parametrize(
    "play",
    [silence, trickle(b"\x16\x03\x03\x40\x00", b"\x02"), say(b"HTTP/1.1 400 Bad Request\r\n\r\n", close=True)],
    ids=["mute", "a handshake without end", "no TLS"],
)
def test_without_tls_there_was_no_write(play: Play, session: requests.Session) -> None:
    with peer(play, mute=True) as server:
        url = server.url.replace("http:", "https:")
        began = time.monotonic()
        error = failure(rhythm_at(connection(url, timeout_seconds=SECONDS), session), "patch")
        assert time.monotonic() - began < AT_MOST
    assert not error.maybe_applied
    assert "no connection" in error.detail


def test_no_trace_of_a_failure_tells_of_a_person(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.fault("reset", kind="student_exam")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        nobody = f"http://127.0.0.1:{listening.getsockname()[1]}"
    for url in (sandbox.url, nobody):
        with pytest.raises(RhythmUnavailable) as caught:
            rhythm_at(connection(url), session).student_exam("jane-canary", "exam-1")
        error: BaseException | None = caught.value
        while error is not None:
            assert "canary" not in "".join(traceback.format_exception_only(error)) + repr(error.args)
            error = error.__cause__ or error.__context__
