"""Reads and unpacks a request's body, and decides what of a body is kept, however it came.

No more than the limit is held in memory, and nothing blocks the event loop for long: packed bodies are unpacked in
small pieces, large ones are searched for keys in a thread, and only a few large ones of strangers are read at a time.
"""

import asyncio
import hashlib
import json
import re
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from schemas.event import Reason
from worker.receiver.credentials import Proof, without_keys
from worker.tenants import Credentials

#: A larger body is refused, as sent or unpacked.
REFUSED_ABOVE: Final = 20 * 2**20
#: How much is kept of a body that is too large. A body up to this size is handled on the event loop.
BEGINNING: Final = 64 * 1024
#: Large bodies of senders without proven credentials that are read at once, and how long each may take.
_STRANGERS, _STRANGER_SECONDS = 16, 60
#: gzip members in one body. Usually there is one.
_MEMBERS: Final = 1000
_GZIP: Final = ("gzip", "x-gzip")
#: Values that senders put there although they mean characters or lines, not how the body is packed.
_NO_CODING: Final = re.compile(
    r"(identity|none|binary|[78]bit"
    r"|(charset\s*=\s*)?(utf-?(8|16|32)([bl]e)?|(us-)?ascii|iso-?8859-?\d+|latin-?\d+|(windows|cp|ibm)-?\d+|unicode))?"
)


class Refused(Exception):
    """A delivery is refused, with `status` and a sentence for the sender."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Body:
    """What is recorded: the body, or a stub of it and the reason for that."""

    content: bytes
    problem: str = ""


def keep(sent: bytes, listed: Sequence[Credentials], largest: int) -> Body:
    """The body without the keys that a tenant's credentials expect in it.

    Above `largest` bytes it is a stub: the beginning, the length and the digest.
    """
    content, rest = without_keys(listed, sent[: _searched(largest)]), sent[_searched(largest) :]
    if not rest and len(content) <= largest:
        return Body(content)
    stub = _Stub(content)
    stub.update(rest)
    return stub.body()


class _Stub:
    """What is kept of a body over the limit. Keys after the part that is searched only go into the digest."""

    def __init__(self, content: bytes) -> None:
        self._beginning = content[:BEGINNING]
        self._length = len(content)
        self._digest = hashlib.sha256(content)

    def update(self, piece: bytes) -> None:
        self._length += len(piece)
        self._digest.update(piece)

    def body(self) -> Body:
        stub = {
            "beginning": b64encode(self._beginning).decode(),
            "length": self._length,
            "sha256": self._digest.hexdigest(),
        }
        return Body(json.dumps(stub).encode(), Reason.BODY_TOO_LARGE)


def check_framing(transfer_encodings: Sequence[str], has_length: bool) -> None:
    """Raises Refused when the body's end is unknown (RFC 9112, 6.3) or it has another transfer coding than chunked.

    A request without a length has no body, but an old client may send one all the same.
    """
    if not transfer_encodings and not has_length:
        raise Refused(411, "neither Content-Length nor Transfer-Encoding: say how long the body is, be it 0")
    if transfer_encodings and [one.strip().lower() for one in transfer_encodings] != ["chunked"]:
        raise Refused(415, "Transfer-Encoding: only chunked is understood")


def is_packed(encodings: Sequence[str]) -> bool:
    """Whether `Content-Encoding` says gzip. Raises Refused: 415, it says something else."""
    values = (value.strip(" \t\"'").lower() for value in ",".join(encodings).split(","))
    codings = [value for value in values if not _NO_CODING.fullmatch(value)]
    if len(codings) > 1 or any(one not in _GZIP for one in codings):
        raise Refused(415, "only gzip is unpacked: send the body as it is, or Content-Encoding: gzip")
    return bool(codings)


class Reader:
    """Reads bodies. One a process, for one event loop."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._searched = _searched(largest)
        self._strangers = 0
        self._thread = ThreadPoolExecutor(1, "search")

    async def read(self, chunks: AsyncIterator[bytes], packed: bool, proof: Proof) -> Body:
        """What to record of a body.

        Raises Refused: 401 when its end has not proven the credentials; 413 above 20 MiB; 400 for broken gzip; 503 or
        408 for a large body without proven credentials, when there are too many or it takes too long.
        """
        pieces, parts = _unpacked(chunks) if packed else chunks, list[bytes]()
        if await _gather(pieces, parts, BEGINNING, proof):
            return self._kept(proof.open(b"".join(parts), whole=True), proof)
        if proof.accepted:
            return await self._read_large(pieces, parts, proof)
        with self._room():
            try:
                async with asyncio.timeout(_STRANGER_SECONDS):
                    return await self._read_large(pieces, parts, proof)
            except TimeoutError:
                raise Refused(408, f"the body took over {_STRANGER_SECONDS} s") from None

    async def _read_large(self, pieces: AsyncIterator[bytes], parts: list[bytes], proof: Proof) -> Body:
        """Of a body over the limit only the part that is searched is held; the rest goes into a digest."""
        whole = await _gather(pieces, parts, self._searched, proof)
        sent = b"".join(parts)
        parts.clear()
        content = await self._opened(sent[: self._searched], proof, whole)
        if whole:
            return self._kept(content, proof)
        if not (proof.accepted or proof.signed):
            raise Refused(401, "bad credentials")
        stub = _Stub(content)
        stub.update(sent[self._searched :])
        size = len(sent)
        async for piece in pieces:
            size += len(piece)
            _bounded(size)
            proof.update(piece)
            stub.update(piece)
        _bounded(size)
        if not proof.end():
            raise Refused(401, "bad credentials")
        return stub.body()

    async def _opened(self, sent: bytes, proof: Proof, whole: bool) -> bytes:
        if not proof.searches:
            return sent
        return await asyncio.get_running_loop().run_in_executor(self._thread, proof.open, sent, whole)

    def _kept(self, content: bytes, proof: Proof) -> Body:
        if not proof.end():
            raise Refused(401, "bad credentials")
        return keep(content, (), self._largest)

    @contextmanager
    def _room(self) -> Iterator[None]:
        """For one large body without proven credentials: strangers cannot fill the memory."""
        if self._strangers >= _STRANGERS:
            raise Refused(503, "too many large bodies of unknown senders at once: send it again")
        self._strangers += 1
        try:
            yield
        finally:
            self._strangers -= 1


def _searched(largest: int) -> int:
    """How much of a body is searched for keys: without them a body may be small enough to be kept."""
    return min(largest + BEGINNING, REFUSED_ABOVE)


def _bounded(size: int) -> None:
    if size > REFUSED_ABOVE:
        raise Refused(413, f"the body is over {REFUSED_ABOVE} bytes")


async def _gather(pieces: AsyncIterator[bytes], parts: list[bytes], enough: int, proof: Proof) -> bool:
    """Read until there are more than `enough` bytes. Returns whether the body ended before that."""
    size = sum(map(len, parts))
    if size > enough:
        return False
    async for piece in pieces:
        parts.append(piece)
        size += len(piece)
        proof.update(piece)
        if size > enough:
            return False
    return True


async def _unpacked(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A gzip body unpacked, in small pieces. It may have several members (RFC 1952, 2.2).

    Other requests get a turn between two pieces: some kilobytes may be megabytes unpacked.
    """
    unpack, members, size = _member(), 1, 0
    try:
        async for chunk in chunks:
            packed = chunk
            size += len(chunk)
            _bounded(size)
            while packed:
                if unpack.eof:
                    unpack, members = _member(), members + 1
                    if members > _MEMBERS:
                        raise Refused(400, f"the gzip body has over {_MEMBERS} members")
                yield unpack.decompress(packed, BEGINNING)
                packed = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
                await asyncio.sleep(0)
        yield unpack.flush()
    except zlib.error:
        raise Refused(400, "the body is not gzip") from None
    if not unpack.eof:
        raise Refused(400, "the gzip body ends too early")


def _member() -> "zlib._Decompress":
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
