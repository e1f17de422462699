"""Raw bytes to a real receiver: 202 is only answered for a body that was read whole, and then that body is recorded."""

import gzip
import socket
import time
from collections.abc import Iterator

import pytest
import zstandard
from pydantic import SecretStr
from starlette.applications import Starlette

from tests.running import wait_until
from tests.senders import ReceiverAt, receiver_at
from worker.receiver.app import server_config
from worker.settings import Settings

H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
LENGTH = "Content-Length: 5"
CHUNKED = "Transfer-Encoding: chunked"
CLOSE = "Connection: close, Upgrade"
BODY = b"hello"
IN_CHUNKS = b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
URL = "/v1/acme/certiverse"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverAt]:
    """One receiver for all tests here. It closes idle connections after a second."""
    with receiver_at(tmp_path_factory.mktemp("receiver"), EXAMRELAY_KEEP_ALIVE_SECONDS="1") as built:
        yield built


@pytest.fixture
def receiver(running: ReceiverAt) -> ReceiverAt:
    """The receiver, with nothing recorded."""
    running.client.flushall()
    return running


def head(*headers: str, method: str = "POST", url: str = URL, version: str = "1.1", known: bool = True) -> bytes:
    """The head of a request with right credentials, or without any."""
    credentials = ["Authorization: Basic Y2VydGl2ZXJzZTpzM2NyZXQ="] if known else []
    lines = [f"{method} {url} HTTP/{version}", "Host: x", *credentials, *headers, "", ""]
    return "\r\n".join(lines).encode()


def answers(receiver: ReceiverAt, *segments: bytes, ends: bool = False) -> list[int]:
    """The statuses of all answers to what is sent, each segment by itself; `ends`: and no more will come."""
    with socket.create_connection(("127.0.0.1", receiver.stack.port), timeout=5) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, segment in enumerate(segments):
            if number:
                time.sleep(0.01)  # so that it is read by itself
            raw.sendall(segment)
        if ends:
            raw.shutdown(socket.SHUT_WR)
        told = raw.makefile("rb").read()  # until the receiver closes: an idle connection after a second
    return [int(line[:3]) for line in told.split(b"HTTP/1.1 ")[1:]]


def recorded(receiver: ReceiverAt) -> list[bytes]:
    """All bodies that the ledger has for `acme`."""
    payloads = (receiver.client.get(key) for key in receiver.client.keys("er:acme:payload:*"))
    return sorted(zstandard.decompress(payload[1:]) for payload in payloads)


@pytest.mark.parametrize(
    "upgrade",
    [
        ("Connection: close, Upgrade, HTTP2-Settings", *H2C[1:]),
        (CLOSE, "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"),
        (CLOSE, "Upgrade: TLS/1.0"),
        (CLOSE, "Upgrade: anything, h2c"),
        ("connection: CLOSE,uPGRADE", "uPgRaDe: H2C"),
        ("Connection: Upgrade", "Connection: close", "Upgrade: h2c", "Upgrade: x"),
        (CLOSE, "Upgrade: h2c", "Expect: 100-continue"),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("framed", [(LENGTH, BODY), (CHUNKED, IN_CHUNKS)])
def test_with_upgrade_the_body_is_read_whole(
    receiver: ReceiverAt, upgrade: tuple[str, ...], version: str, framed: tuple[str, bytes]
) -> None:
    told, body = framed
    start = head(*upgrade, told, version=version)
    for segments in ([start + body], [start, body[:3], body[3:]], [start[:70], start[70:] + body[:1], body[1:]]):
        receiver.client.flushall()
        assert answers(receiver, *segments)[-1] == 202
        assert recorded(receiver) == [BODY]


def test_behind_a_request_with_upgrade_others_are_read(receiver: ReceiverAt) -> None:
    upgrade, plain = head(*H2C, LENGTH) + b"first", head(LENGTH) + b"after"
    last = head("Connection: close", LENGTH) + b"final"
    unknown = head(*H2C, LENGTH, known=False) + b"nobod"
    look = head(*H2C, method="GET", url="/healthz")
    assert answers(receiver, upgrade + plain + upgrade + look + unknown + last) == [202, 202, 202, 200, 401, 202]
    assert recorded(receiver) == [b"after", b"final", b"first"]
    receiver.client.flushall()
    assert answers(receiver, upgrade, plain, unknown, look, upgrade, last) == [202, 202, 401, 200, 202, 202]
    assert recorded(receiver) == [b"after", b"final", b"first"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(head("Connection: close"), 411, id="no length"),
        pytest.param(head(version="1.0") + BODY, 411, id="a length that the end of the connection shows"),
        pytest.param(head(CLOSE, "Upgrade: h2c"), 411, id="Upgrade, and no length"),
        pytest.param(head("Content-Length: 3") + BODY, 400, id="longer than said"),
        pytest.param(head(LENGTH, LENGTH) + BODY, 400, id="the length twice"),
        pytest.param(head(LENGTH, "Content-Length: 0") + BODY, 400, id="two lengths"),
        pytest.param(head("Content-Length: 5, 5") + BODY, 400, id="a list of lengths"),
        pytest.param(head("Content-Length: +5") + BODY, 400, id="a length with a sign"),
        pytest.param(head("Content-Length : 5") + BODY, 400, id="a space before the colon"),
        pytest.param(head(LENGTH, CHUNKED) + IN_CHUNKS, 400, id="a length, and chunked"),
        pytest.param(head(*H2C, LENGTH, CHUNKED) + IN_CHUNKS, 400, id="Upgrade, a length, and chunked"),
        pytest.param(head("Transfer-Encoding: gzip, chunked", CLOSE) + IN_CHUNKS, 415, id="packed on the way"),
        pytest.param(
            head("Transfer-Encoding: gzip", CHUNKED, CLOSE) + IN_CHUNKS, 415, id="packed on the way, two lines"
        ),
        pytest.param(head("Transfer-Encoding: identity") + BODY, 400, id="identity"),
        pytest.param(head("Transfer-Encoding: chunked, identity") + IN_CHUNKS, 400, id="chunked is not the last"),
        pytest.param(head(CHUNKED) + b"zz\r\nhello\r\n0\r\n\r\n", 400, id="no number of a chunk"),
        pytest.param(head(LENGTH, method="CONNECT") + BODY, 400, id="CONNECT"),
        pytest.param(head(LENGTH, method="CONNECT", url="x:80") + BODY, 400, id="CONNECT as to a proxy"),
        pytest.param(head(LENGTH, CLOSE, method="TRACE") + BODY, 405, id="TRACE"),
        pytest.param(head("Content-Encoding: gzip", LENGTH, CLOSE) + BODY, 400, id="not gzip"),
        pytest.param(head("X: 1\r\n 2", LENGTH) + BODY, 400, id="a folded header"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="HTTP/2 at once"),
        pytest.param(head(*["X: 1"] * 300, LENGTH) + BODY, 431, id="many headers"),
        pytest.param(head(CHUNKED) + IN_CHUNKS[:-2] + b"X: 1\r\n" * 300 + b"\r\n", 431, id="many headers at the end"),
    ],
)
def test_what_is_not_read_whole_is_refused_and_not_recorded(receiver: ReceiverAt, sent: bytes, status: int) -> None:
    assert answers(receiver, sent, ends=True)[:1] in ([status], [])  # a sender who ends may not be answered
    assert answers(receiver, sent)[:1] == [status]
    assert recorded(receiver) == []


@pytest.mark.parametrize(
    "start", [head("Content-Length: 50") + BODY, head(CHUNKED) + b"5\r\nhello\r\n", head(*H2C, LENGTH)]
)
def test_a_connection_that_ends_before_the_body_does_leaves_nothing(receiver: ReceiverAt, start: bytes) -> None:
    assert answers(receiver, start, ends=True) == []
    assert recorded(receiver) == []


def test_endless_headers_are_refused(receiver: ReceiverAt) -> None:
    assert answers(receiver, b"POST / HTTP/1.1\r\nX: ", *[b"x" * 60_000] * 3) == [431]


def test_an_unusual_and_valid_request_is_read(receiver: ReceiverAt) -> None:
    packed = gzip.compress(BODY, mtime=0)
    coded = head("Content-Encoding: identity", "Content-Encoding: gzip", f"Content-Length: {len(packed)}", CLOSE)
    for sent in (
        head(LENGTH, CLOSE, url=f"http://x{URL}") + BODY,
        head(*H2C, LENGTH, "Connection: close", url=f"http://x{URL}?a=b") + BODY,
        head(CHUNKED, CLOSE) + IN_CHUNKS[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        coded + packed,
        head(LENGTH, CLOSE, "Content-Encoding: UTF-8") + BODY,
    ):
        receiver.client.flushall()
        assert answers(receiver, sent) == [202]
        assert recorded(receiver) == [BODY]
    receiver.client.flushall()
    assert answers(receiver, head("Content-Length: 0", CLOSE)) == [202]
    assert recorded(receiver) == [b""]


def test_refusals_on_the_wire_are_problems_and_leave_no_line_in_the_log(receiver: ReceiverAt) -> None:
    before = receiver.stack.log("web").read_text()
    with socket.create_connection(("127.0.0.1", receiver.stack.port), timeout=5) as raw:
        raw.sendall(b"MARKED\r\n\r\n")
        told = raw.makefile("rb").read()
    assert b"content-type: application/problem+json\r\n" in told
    answers(receiver, head(CLOSE, "Upgrade: h2c", method="GET", url="/nothing"))
    assert receiver.stack.log("web").read_text() == before


def test_an_idle_connection_is_closed_after_the_seconds_that_are_set(receiver: ReceiverAt) -> None:
    with socket.create_connection(("127.0.0.1", receiver.stack.port), timeout=5) as raw:
        began = time.monotonic()
        raw.sendall(head(LENGTH) + BODY)
        assert b" 202 " in raw.makefile("rb").read()
        assert 0.9 < time.monotonic() - began < 4
    config = server_config(Starlette(), Settings(redis_url=SecretStr("redis://127.0.0.1"), keep_alive_seconds=75))
    assert config.timeout_keep_alive == 75
    assert Settings.model_fields["keep_alive_seconds"].default > 60  # what load balancers have


def test_compressed_megabytes_of_unknown_senders_delay_nobody(receiver: ReceiverAt) -> None:
    """Case a02: 7 KB froze the receiver for 7 s."""
    packed = gzip.compress(b'{"apiKey":"no",' + b'"":0,' * 4_000_000 + b'"x":0}')
    start = head("Content-Encoding: gzip", f"Content-Length: {len(packed)}", url="/v1/acme/prov", known=False)
    strangers = [socket.create_connection(("127.0.0.1", receiver.stack.port), timeout=20) for _ in range(20)]
    for stranger in strangers:
        stranger.sendall(start + packed)
    began = time.monotonic()
    assert receiver.post(b"{}").status_code == 202
    assert time.monotonic() - began < 1
    told = {stranger.makefile("rb").readline() for stranger in strangers}
    assert b"HTTP/1.1 401 Unauthorized\r\n" in told
    assert told <= {b"HTTP/1.1 401 Unauthorized\r\n", b"HTTP/1.1 503 Service Unavailable\r\n"}
    for stranger in strangers:
        stranger.close()
    assert len(recorded(receiver)) == 1
    wait_until(lambda: receiver.call("GET", "/healthz").status_code == 200, 5, "the receiver")
