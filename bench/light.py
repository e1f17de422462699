"""A light stand-in Rhythm: `python -m bench.light [--port N]`. Same acts, same answers, a fraction of the CPU.

The full stand-in (`sandbox/`) costs a tenth to a fifth of the machine on which both sides are measured, and so limits
the ratio. This one keeps its world and its endpoints, and replaces what is dear: the HTTP server, and patches of single
members with native values. Everything else is answered by the stand-in's own code. It plays no scripted faults and
refuses to be given any. `tests/integration/test_light_rhythm.py` holds its answers against the full one's.
"""

import argparse
import asyncio
import gc
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import httptools
import uvloop
from pydantic_core import from_json, to_json

from sandbox.access import admit
from sandbox.calls import Call, Refused, parse
from sandbox.control import Sandbox
from sandbox.endpoints import Endpoints
from sandbox.registrations import Record, Registration
from sandbox.world import Acts, World

_ACTS: Final = b"/_sandbox/"
#: The members that are written here, and what each may be; a patch of any other member takes the long way.
_STATUSES: Final = frozenset(("draft", "registered", "passed", "failed", "no show", "cancelled"))
_MAY_BE: Final = {
    "/status": lambda value: type(value) is str and value in _STATUSES,
    "/score": lambda value: type(value) in (int, float),
    "/exam_date": lambda value: type(value) is str,
}
_PLAIN: Final = {"op", "path", "value"}
_HEAD: Final = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"


class Answer(NamedTuple):
    """What is answered; the log reads status and headers of it."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes


class _Light(Endpoints):
    """The endpoints, with a short way for plain patches."""

    def _planned(self, name: str, directives: Any) -> tuple[Record, Registration]:
        if self._options.values == "native" and isinstance(directives, list):
            record = self._writable(name)
            after = _plainly(record.current, directives)
            if after is not None:
                return record, after
        return super()._planned(name, directives)


def _plainly(before: Registration, directives: list[Any]) -> Registration | None:
    """The registration after all directives; None when one is not plain, or does not hold."""
    after = before.copy()
    for one in directives:
        if type(one) is not dict or one.keys() != _PLAIN or type(one["path"]) is not str:
            return None
        path, value = one["path"], one["value"]
        if one["op"] == "add" and path in _MAY_BE and _MAY_BE[path](value):
            after[path[1:]] = value
        elif (one["op"], path) != ("test", "/sys_version") or type(value) is not int or after["sys_version"] != value:
            return None
    return after


class _Connection(asyncio.Protocol):
    """One connection of a client that waits for each answer before its next request."""

    def __init__(self, acts: Acts) -> None:
        self._acts = acts
        self._transport: Any = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._body, self._authorization = b"", b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            self._authorization = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        url, body, method = self._url, self._body, self._parser.get_method().decode()
        authorization = self._authorization
        self._url, self._body, self._authorization = b"", b"", b""
        if url.startswith(_ACTS):
            self._send(_act(self._acts, url, body))
            return
        path, _, query = url.partition(b"?")
        scope = {"method": method, "raw_path": path, "query_string": query}
        self._call(parse(scope | {"headers": [(b"authorization", authorization)]}, body))

    def _call(self, call: Call) -> None:
        world = self._acts.world
        entry = world.log.begin(call, time.time())
        try:
            _admit(world, call)
        except Refused as refused:
            self._end(world, entry, _refusal(refused))
            return
        if world.options.latency_ms:
            asyncio.get_running_loop().call_later(world.options.latency_ms / 1000, self._answer, world, call, entry)
        else:
            self._answer(world, call, entry)

    def _answer(self, world: World, call: Call, entry: dict[str, Any]) -> None:
        try:
            answer = Answer(200, {}, to_json(getattr(_Light(world, call), call.kind)()))
        except Refused as refused:
            answer = _refusal(refused)
        self._end(world, entry, answer)

    def _end(self, world: World, entry: dict[str, Any], answer: Answer) -> None:
        world.log.end(entry, answer)
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        head = _HEAD % (answer.status_code, len(answer.body))
        for name, value in answer.headers.items():
            head += f"{name}: {value}\r\n".encode()
        self._transport.write(head + b"\r\n" + answer.body)


def _admit(world: World, call: Call) -> None:
    if call.kind == "unknown":
        raise Refused(404, "The resource could not be found")
    if call.kind != "token":
        admit(world, call)


def _refusal(refused: Refused) -> Answer:
    headers = {name.lower(): value for name, value in (refused.headers or {}).items()}
    return Answer(refused.status, headers, to_json(refused.body))


def _act(acts: Acts, url: bytes, body: bytes) -> Answer:
    """What the caller got wrong is 422, with the reason."""
    name, *places = [unquote(part) for part in url[len(_ACTS) :].decode().split("/")]
    if name == "fault":
        return Answer(422, {}, to_json("the light stand-in plays no faults: use the full one"))
    try:
        return Answer(200, {}, to_json(getattr(acts, name)(*places, **from_json(body or b"{}"))))
    except (AttributeError, LookupError, TypeError, ValueError) as mistake:
        return Answer(422, {}, to_json(f"{type(mistake).__name__}: {mistake}"))


async def _serve(port: int) -> None:
    acts, loop, ended = Acts(), asyncio.get_running_loop(), asyncio.Event()
    for stop in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop, ended.set)
    listening = socket.create_server(("127.0.0.1", port), backlog=2048)
    await loop.create_server(lambda: _Connection(acts), sock=listening)
    sys.stdout.write(f"sandbox ready on http://127.0.0.1:{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    await ended.wait()


@contextmanager
def start() -> Iterator[tuple[Sandbox, int]]:
    """Run `python -m bench.light` until the block ends. Gives its client, and its process id."""
    with subprocess.Popen([sys.executable, "-m", "bench.light"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            with Sandbox(process.stdout.readline().split("ready on ")[1].strip()) as sandbox:
                yield sandbox, process.pid
        finally:
            with suppress(ProcessLookupError):
                process.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.light", description="A light stand-in Rhythm.")
    parser.add_argument("--port", type=int, default=0)
    gc.disable()  # the world only grows, and has no cycles
    uvloop.run(_serve(parser.parse_args().port))
