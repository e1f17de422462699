"""Deliveries to a receiver: keep-alive connections that each send the next event when the last is answered; or `wrk`.

Every body is another, made from one template, so that no event is a repeated one.
"""

import asyncio
import re
import shutil
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Final, cast

import uvloop

from bench.ours import TENANT
from bench.payloads import Sitting, sittings
from tests.tenants import ENVIRON

_PASSWORD: Final = b64encode(f"certiverse:{ENVIRON['ACME_CERTIVERSE']}".encode()).decode()
PATH: Final = f"/v1/{TENANT}/certiverse"
HEADERS: Final = {"Authorization": f"Basic {_PASSWORD}", "Content-Type": "application/json"}
CONNECTIONS: Final = 32
_WARM_SECONDS: Final = 0.5
_LONGEST: Final = 300
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_DIGITS: Final = 12
_numbers = count(int(time.time()) * 1000 % 10**_DIGITS)


class _Template:
    """A body in two halves, around a number of fixed length that stands in its delivery's id."""

    def __init__(self, sitting: Sitting) -> None:
        before, name, after = sitting.body.partition(b'"deliverableId":"')
        self.head, self.tail = before + name, after
        self.start = _head(len(sitting.body) + _DIGITS) + self.head

    def request(self) -> bytes:
        """The next whole request."""
        return b"%s%0*d%s" % (self.start, _DIGITS, next(_numbers), self.tail)


def _head(length: int) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    return f"POST {PATH} HTTP/1.1\r\nHost: receiver\r\n{fields}Content-Length: {length}\r\n\r\n".encode()


class _Connection(asyncio.Protocol):
    """One connection. `accepted` is called for each 202; anything else ends the load. No request: it stays silent."""

    def __init__(
        self, request: Callable[[], bytes], accepted: Callable[[], object], failed: Callable[[str], object]
    ) -> None:
        self._request = request
        self._accepted = accepted
        self._failed = failed
        self._seen = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own are no subclass
        self._transport.write(self._request())

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._seen += data
        head, whole, body = self._seen.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not whole or len(body) < (int(length[1]) if length else 0):
            return
        self._seen = b""
        if head.startswith(b"HTTP/1.1 202"):
            self._accepted()
            self._transport.write(self._request())
        else:
            self._failed(head.partition(b"\r\n")[0].decode())

    def connection_lost(self, exc: Exception | None) -> None:
        self._failed(f"the receiver hung up: {exc}")


def deliver(port: int, sittings: Sequence[Sitting]) -> None:
    """Have the receiver at `port` accept each of them. Fails when it answers anything but 202."""
    uvloop.run(_deliver(port, sittings))


async def _deliver(port: int, sittings: Sequence[Sitting]) -> None:
    left, taken = iter(sittings), count(1)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str] = loop.create_future()

    def request() -> bytes:
        one = next(left, None)
        return _head(len(one.body)) + one.body if one else b""

    def accepted() -> None:
        if next(taken) == len(sittings):
            end("")

    def end(why: str) -> None:
        if not done.done():
            done.set_result(why)

    opened = [
        await loop.create_connection(lambda: _Connection(request, accepted, end), "127.0.0.1", port)
        for _ in range(min(CONNECTIONS, len(sittings)))
    ]
    failure = await asyncio.wait_for(done, _LONGEST)
    for transport, _ in opened:
        transport.abort()
    if failure:
        raise RuntimeError(f"a delivery failed: {failure}")


def accepted_a_second(port: int, seconds: float) -> float:
    """Events that the receiver at `port` accepts a second. Fails when it answers anything but 202."""
    return uvloop.run(_load(port, seconds))


async def _load(port: int, seconds: float) -> float:
    template = _Template(sittings(1)[0])
    accepted, failures = count(), list[str]()
    loop = asyncio.get_running_loop()

    def connection() -> _Connection:
        return _Connection(template.request, lambda: next(accepted), failures.append)

    opened = [await loop.create_connection(connection, "127.0.0.1", port) for _ in range(CONNECTIONS)]
    await asyncio.sleep(_WARM_SECONDS)
    began, before = time.monotonic(), next(accepted)
    await asyncio.sleep(seconds)
    rate = (next(accepted) - before - 1) / (time.monotonic() - began)
    if failures or not rate:
        raise RuntimeError(f"under load: {failures[0] if failures else 'no answer at all'}")
    for transport, _ in opened:
        transport.abort()
    return rate


def wrk() -> str | None:
    """The program, where it is installed."""
    return shutil.which("wrk")


_WRK: Final = """
local function read(name) local file = io.open("{folder}/" .. name, "rb") return file:read("*a") end
local head, tail, number = read("head"), read("tail"), {start}
wrk.method = "POST"
{headers}
request = function()
  number = number + 1
  return wrk.format(nil, nil, nil, head .. string.format("%0{digits}d", number) .. tail)
end
"""


def wrk_accepted_a_second(program: str, port: int, seconds: float) -> float:
    """The same by wrk, with one thread. Fails when an answer was no 2xx."""
    template = _Template(sittings(1)[0])
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in HEADERS.items())
    start = next(_numbers) * 10
    with tempfile.TemporaryDirectory(prefix="examrelay-bench-") as folder:
        (Path(folder) / "head").write_bytes(template.head)
        (Path(folder) / "tail").write_bytes(template.tail)
        script = Path(folder) / "post.lua"
        script.write_text(_WRK.format(folder=folder, start=start, headers=headers, digits=_DIGITS + 1))
        url = f"http://127.0.0.1:{port}{PATH}"
        printed = subprocess.run(
            [program, "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", str(script), url],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    rate = re.search(r"Requests/sec: *([\d.]+)", printed)
    if rate is None or "Non-2xx" in printed:
        raise RuntimeError(f"wrk: {printed}")
    return float(rate[1])
