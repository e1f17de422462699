"""What the Rhythm tests share: a tenant's connection, registrations, and a misbehaving server on a raw socket."""

import contextlib
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from worker.remote import RhythmConnection
from worker.rhythm.auth import Token
from worker.rhythm.client import Rhythm

TENANT = "acme.org"
KEY = "sandbox-key"

#: Plays one connection's answer to one request; the event is set when the test is over.
Play = Callable[[socket.socket, threading.Event], None]


def connection(url: str, **settings: Any) -> RhythmConnection:
    """A tenant's connection to `url`; an API key unless told otherwise."""
    credentials = {"kind": "api_key", "key": "env:KEY"}
    secrets = {"environ": {"KEY": KEY, "SECRET": "sandbox-secret", "WRONG": "wrong"}}
    return RhythmConnection.model_validate(
        {"url": url, "tenant_id": TENANT, "credentials": credentials} | settings, context=secrets
    )


class ProcessTokens:
    """A TokenStore of this process; production shares tokens in Redis (worker/ledger/tokens.py)."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def get(self, key: str) -> Token | None:
        return self._tokens.get(key)

    def put(self, key: str, token: Token) -> None:
        self._tokens[key] = token

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        with self._locks[key]:
            yield


def free() -> None:
    """A gate that is open."""


def rhythm_at(settings: RhythmConnection, session: requests.Session, take_turn: Callable[[], None] = free) -> Rhythm:
    """A client with tokens of its own."""
    return Rhythm(settings, session, take_turn, ProcessTokens())


def registration(id: str, **members: Any) -> dict[str, Any]:
    """What the stand-in is seeded with."""
    return {
        "id": id,
        "name": "Candidate",
        "exam_id": "exam-1",
        "exam_offering_id": "offering-1",
        "student_id": "student-1",
        "email_address": "candidate@example.org",
        "date": "2026-01-01T00:00:00Z",
        "status": "registered",
    } | members


@dataclass
class Peer:
    """A server on a raw socket, and the requests that it received."""

    url: str
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    @property
    def last(self) -> tuple[str, str]:
        """Head and body of the last request."""
        head, _, body = self.requests[-1].partition(b"\r\n\r\n")
        return head.decode(), body.decode()


@contextmanager
def peer(*plays: Play, mute: bool = False) -> Iterator[Peer]:
    """A server that answers each request with the next of `plays` and repeats the last; `mute`: without reading it."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        server = Peer(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread = threading.Thread(target=_serve, args=(listening, server, list(plays), over, mute))
        thread.start()
        try:
            yield server
        finally:
            over.set()
            thread.join()


def _serve(listening: socket.socket, server: Peer, plays: list[Play], over: threading.Event, mute: bool) -> None:
    while not over.is_set():
        with contextlib.suppress(TimeoutError):
            accepted, _ = listening.accept()
            server.connections += 1
            with accepted, contextlib.suppress(OSError):
                accepted.settimeout(0.05)
                while not over.is_set() and (mute or _request(accepted, server, over)):
                    (plays.pop(0) if len(plays) > 1 else plays[0])(accepted, over)


def _request(accepted: socket.socket, server: Peer, over: threading.Event) -> bool:
    received = b""
    while not over.is_set():
        head, ended, body = received.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if ended and len(body) >= length:
            server.requests.append(received)
            return True
        with contextlib.suppress(TimeoutError):
            chunk = accepted.recv(65536)
            if not chunk:
                return False
            received += chunk
    return False


def answer(status: int = 200, body: str | bytes = b"{}", headers: Mapping[str, str] | None = None) -> Play:
    """A whole answer with its length."""
    content = body.encode() if isinstance(body, str) else body
    return say(_head(status, {"Content-Length": str(len(content))} | dict(headers or {})) + content)


def say(content: bytes, *, close: bool = False) -> Play:
    """These bytes."""

    def play(accepted: socket.socket, over: threading.Event) -> None:
        accepted.settimeout(5)
        accepted.sendall(content)
        accepted.settimeout(0.05)
        if close:
            raise ConnectionAbortedError

    return play


def trickle(start: bytes, drop: bytes = b" ") -> Play:
    """`start`, then one byte after the other, each within the timeout of a single read, until the test ends."""

    def play(accepted: socket.socket, over: threading.Event) -> None:
        accepted.sendall(start)
        while not over.wait(0.02):
            accepted.sendall(drop)

    return play


def silence(accepted: socket.socket, over: threading.Event) -> None:
    """No answer at all."""
    over.wait()


def head(status: int = 200, **headers: str) -> bytes:
    """The start of an answer whose body is left to the test."""
    return _head(status, {name.replace("_", "-"): value for name, value in headers.items()})


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"
