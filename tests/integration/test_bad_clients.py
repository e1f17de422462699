"""Clients who are slow, endless, idle, or lie: the receiver's memory stays bounded and others are served meanwhile.

Each abuse goes on beside a platform that delivers all the time. What that platform waits for its answers and how much
memory the receiver takes are measured. With EXAMRELAY_FULL=1 (`make proofs`) there are ten thousand connections,
and the figures are printed; else some hundreds.
"""

import gzip
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import requests
import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests.events import certiverse
from tests.running import free_port, wait_until
from tests.senders import CERTIVERSE, ReceiverAt, receiver_at
from worker.receiver.app import server_config
from worker.receiver.connection import Connection
from worker.settings import Settings

FULL = os.environ.get("EXAMRELAY_FULL") == "1"
MANY, SECONDS, BOMBS = (10_000, 5.0, 20) if FULL else (200, 0.4, 2)
#: What a busy machine adds as well. Alone it is some milliseconds.
P99_SECONDS = 2.0
MEMORY_MIB = 300 if FULL else 150
MIB = 2**20
BASIC = "Authorization: Basic Y2VydGl2ZXJzZTpzM2NyZXQ="


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverAt]:
    """One receiver for all, started as a shell starts it; after that this process may have many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    with receiver_at(tmp_path_factory.mktemp("abused")) as built:
        resource.setrlimit(resource.RLIMIT_NOFILE, (65_536 if hard == resource.RLIM_INFINITY else hard, hard))
        yield built
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Connections of one kind of client to the receiver, all closed at the end."""

    def __init__(self, port: int, ends: ExitStack) -> None:
        self._port, self._ends = port, ends
        self.sockets: list[socket.socket] = []

    def connect(self, count: int, begin: bytes = b"") -> None:
        for _ in range(count):
            one = self._ends.enter_context(socket.create_connection(("127.0.0.1", self._port), timeout=20))
            self.sockets.append(one)
            one.sendall(begin)

    def drip(self, piece: bytes, seconds: float = SECONDS, times: int = 2**30) -> int:
        """Each sends a piece, again and again. Returns how many could send to the end."""
        ends, alive, sent = time.monotonic() + seconds, set(self.sockets), 0
        while time.monotonic() < ends and alive and sent < times:
            sent += 1
            for one in list(alive):
                try:
                    one.sendall(piece)
                except OSError:
                    alive.remove(one)
        return len(alive)

    def told(self) -> set[bytes]:
        """The first line of what each was answered; empty where the connection ended without an answer."""
        lines = set()
        for one in self.sockets:
            with suppress(OSError):
                lines.add(one.makefile("rb").readline().strip())
        return lines


def head(*lines: str, known: bool = True, url: str = "/v1/acme/certiverse", method: str = "POST") -> bytes:
    credentials = [BASIC] if known else []
    return "\r\n".join((f"{method} {url} HTTP/1.1", "Host: x", *credentials, *lines, "", "")).encode()


def idle(crowd: Crowd) -> None:
    crowd.connect(MANY)


def slow_heads(crowd: Crowd) -> None:
    crowd.connect(MANY // 10, b"POST /v1/acme/certiverse HTTP/1.1\r\nX-Slow: ")
    assert crowd.drip(b"x", min(SECONDS, 1)) == MANY // 10


def slow_bodies(crowd: Crowd) -> None:
    crowd.connect(MANY // 10, head("Content-Length: 100000"))
    assert crowd.drip(b"x", min(SECONDS, 1)) == MANY // 10


def slow_bodies_of_strangers(crowd: Crowd) -> None:
    """Whose credentials could still come: they are in the body."""
    crowd.connect(MANY // 10, head("Content-Length: 100000", known=False, url="/v1/acme/prov") + b"x" * 60_000)


def endless_bodies(crowd: Crowd) -> None:
    crowd.connect(3, head("Transfer-Encoding: chunked"))
    crowd.drip(b"10000\r\n" + b"x" * 65_536 + b"\r\n", seconds=60, times=21 * MIB // 65_536)
    assert crowd.told() <= {b"HTTP/1.1 413 Request Entity Too Large", b"HTTP/1.1 413 Content Too Large", b""}


def endless_bodies_of_strangers(crowd: Crowd) -> None:
    crowd.connect(10, head("Transfer-Encoding: chunked", known=False))
    crowd.drip(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
    assert crowd.told() <= {b"HTTP/1.1 401 Unauthorized", b""}


def endless_heads(crowd: Crowd) -> None:
    crowd.connect(10, b"POST / HTTP/1.1\r\nX: ")
    assert crowd.drip(b"x" * 65_536, seconds=20) == 0


def endless_trailers(crowd: Crowd) -> None:
    """What comes behind the body's last chunk was kept without a limit."""
    crowd.connect(10, head("Transfer-Encoding: chunked", known=False) + b"0\r\nX: ")
    assert crowd.drip(b"x" * 65_536, seconds=20) == 0


def endless_chunk_extensions(crowd: Crowd) -> None:
    crowd.connect(10, head("Transfer-Encoding: chunked", known=False) + b"5;x=")
    assert crowd.drip(b"x" * 65_536, seconds=20) == 0


def many_headers(crowd: Crowd) -> None:
    crowd.connect(10, b"POST / HTTP/1.1\r\n" + b"a:\r\n" * 30_000)
    assert crowd.told() <= {b"HTTP/1.1 431 Request Header Fields Too Large", b""}


def gzip_bombs(crowd: Crowd) -> None:
    bomb = gzip.compress(bytes(100 * MIB), 9)
    crowd.connect(BOMBS, head("Content-Encoding: gzip", f"Content-Length: {len(bomb)}") + bomb)
    assert crowd.told() <= {b"HTTP/1.1 413 Request Entity Too Large", b"HTTP/1.1 413 Content Too Large"}


def gzip_bombs_of_strangers(crowd: Crowd) -> None:
    bomb = gzip.compress(b'{"apiKey":"no",' + b'"":0,' * 2_000_000 + b'"x":0}')
    lines = ("Content-Encoding: gzip", f"Content-Length: {len(bomb)}")
    crowd.connect(BOMBS, head(*lines, known=False, url="/v1/acme/prov") + bomb)
    assert crowd.told() <= {b"HTTP/1.1 401 Unauthorized", b"HTTP/1.1 503 Service Unavailable"}


def wrong_lengths(crowd: Crowd) -> None:
    for lines in (
        ("Content-Length: -1",),
        ("Content-Length: 99999999999999999999",),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: five",),
        ("Content-Length: 3, 3",),
    ):
        crowd.connect(20, head(*lines) + b"{}   ")
    assert crowd.told() <= {b"HTTP/1.1 400 Bad Request"}


def pipelined(crowd: Crowd) -> None:
    """Taking ten reads apart kept everybody else waiting for 14 s."""
    crowd.connect(20)
    for one in crowd.sockets:
        one.settimeout(0.2)
        with suppress(OSError):
            one.sendall(head(method="GET", url="/openapi.json", known=False) * 10_000)


def deaf(crowd: Crowd) -> None:
    """They ask for large answers and read none."""
    crowd.connect(MANY // 10)
    for one in crowd.sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.sendall(head(method="GET", url="/openapi.json", known=False) * 5)


ABUSES = [
    *(idle, slow_heads, slow_bodies, slow_bodies_of_strangers, endless_bodies, endless_bodies_of_strangers),
    *(endless_heads, endless_trailers, endless_chunk_extensions, many_headers, gzip_bombs, gzip_bombs_of_strangers),
    *(wrong_lengths, pipelined, deaf),
]


class Platform:
    """Delivers all the time, and notes what it is answered and how soon."""

    def __init__(self, receiver: ReceiverAt, name: str) -> None:
        self._url, self._name = f"{receiver.stack.url}/v1/acme/certiverse", name
        self.seconds: list[float] = []
        self.statuses: set[int] = set()

    @contextmanager
    def delivering(self) -> Iterator[None]:
        ends = threading.Event()
        thread = threading.Thread(target=self._deliver, args=(ends,))
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()

    def _deliver(self, ends: threading.Event) -> None:
        """Each delivery on a connection of its own: one that is there already would be served anyhow."""
        while not ends.wait(0.005):
            began = time.monotonic()
            body = certiverse(f"{self._name}-{len(self.seconds)}")
            self.statuses.add(requests.post(self._url, body, auth=CERTIVERSE, timeout=30).status_code)
            self.seconds.append(time.monotonic() - began)

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


def memory(receiver: ReceiverAt, name: str) -> float:
    """In MiB: `VmRSS` now, or `VmHWM` at its highest since it was forgotten."""
    text = Path(f"/proc/{receiver.stack.running['web'].pid}/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory by /proc")
@pytest.mark.parametrize("abuse", ABUSES)
def test_it_takes_little_memory_and_keeps_nobody_else_waiting(
    receiver: ReceiverAt, abuse: Callable[[Crowd], None], record_property: Callable[[str, object], None]
) -> None:
    Path(f"/proc/{receiver.stack.running['web'].pid}/clear_refs").write_text("5")  # forgets the highest
    before, accepted = memory(receiver, "VmRSS"), receiver.accepted()
    platform = Platform(receiver, abuse.__name__)
    with ExitStack() as ends, platform.delivering():
        wait_until(lambda: platform.seconds, 10, "a delivery")
        abuse(Crowd(receiver.stack.port, ends))
        enough = len(platform.seconds) + (300 if FULL else 10)
        wait_until(lambda: len(platform.seconds) >= enough, 60, "deliveries meanwhile")
    grown = memory(receiver, "VmHWM") - before
    assert platform.statuses == {202}
    assert platform.p99 < P99_SECONDS
    assert grown < MEMORY_MIB
    assert receiver.accepted() - accepted == len(platform.seconds), "nothing of the abuse is recorded"
    assert receiver.call("GET", "/healthz").status_code == 200
    log = receiver.stack.log("web").read_text()
    assert "bug.caught" not in log
    assert "Traceback" not in log
    served = (
        f"p50 {sorted(platform.seconds)[len(platform.seconds) // 2] * 1000:.0f} ms, p99 {platform.p99 * 1000:.0f} ms"
    )
    record_property(abuse.__name__, f"{served}, max {max(platform.seconds) * 1000:.0f} ms; memory + {grown:.0f} MiB")


class Hasty(Connection):
    """As the receiver's, with less patience."""

    seconds = 0.3


async def _answer(request: Request) -> Response:
    return PlainTextResponse("x" * MUCH if await request.body() == b"much" else "so")


@pytest.fixture(scope="module")
def hasty() -> Iterator[int]:
    """The port of a server as the receiver has it; idle connections are closed after a second."""
    config = server_config(
        Starlette(routes=[Route("/", _answer, methods=["POST"])]),
        Settings(redis_url=SecretStr("redis://127.0.0.1"), keep_alive_seconds=1),
    )
    config.http, config.port, config.lifespan = Hasty, free_port(), "off"
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, 10, "the server")
    yield config.port
    server.should_exit = True
    thread.join()


#: More than the system holds for a connection.
MUCH = 32 * MIB
ROOT = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("pieces", "told", "seconds"),
    [
        ([], b"", 1),
        ([b"\r\n"] * 30, b"408", 0.3),
        ([ROOT, *[b"x"] * 30], b"408", 0.3),
        ([ROOT + b"Content-Length: 100\r\n\r\n", *[b"x"] * 30], b"408", 0.3),
        ([ROOT + b"Content-Length: 2\r\n\r\nso"], b"200", 1),
        ([ROOT + b"Content-Length: 2\r\n\r\nso" + ROOT, *[b"x"] * 30], b"200", 0.3),
    ],
    ids=["idle", "empty lines", "slow head", "slow body", "idle again", "slow head behind a request"],
)
def test_a_request_has_so_long_to_come_and_an_idle_connection_to_begin_one(
    hasty: int, pieces: list[bytes], told: bytes, seconds: float
) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", hasty), timeout=10) as slow:
        for piece in pieces:
            with suppress(OSError):
                slow.sendall(piece)
            time.sleep(0.02)  # the pace of a slow client
        answer = slow.makefile("rb")
        assert answer.readline()[9:12] == told
        with suppress(OSError):
            answer.read()
    assert seconds < time.monotonic() - began < seconds + 3


@pytest.mark.parametrize("requests", [1, 2])
def test_a_client_that_does_not_read_its_answers_is_not_waited_for(hasty: int, requests: int) -> None:
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", hasty))
        deaf.sendall((ROOT + b"Content-Length: 4\r\n\r\nmuch") * requests)
        began, got = time.monotonic(), 0
        wait_until(lambda: time.monotonic() > began + 2, 5, "the end of patience")
        with suppress(OSError):
            while piece := deaf.recv(MIB):
                got += len(piece)
        assert got < MUCH


def test_the_receiver_may_have_as_many_connections_as_its_hard_limit_allows(receiver: ReceiverAt) -> None:
    soft, hard = resource.prlimit(receiver.stack.running["web"].pid, resource.RLIMIT_NOFILE)
    assert soft == (16_384 if hard == resource.RLIM_INFINITY else min(hard, 16_384))
