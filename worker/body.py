"""Reads a request's body: unpacked, and never more of it than is wanted."""

import hashlib
import json
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from schemas.event import Reason

#: Larger than this is refused outright.
REFUSED_ABOVE: Final = 20 * 2**20
#: Of a body that is too large to keep, this much is kept.
BEGINNING: Final = 64 * 1024


class BodyRefused(Exception):
    """The body will not be read: `status` and a sentence for the sender."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Body:
    """What was sent, or a stub of it, and the reason that a stub is kept."""

    content: bytes
    problem: str = ""


async def read_body(chunks: AsyncIterator[bytes], encoding: str, largest: int) -> Body:
    """The body, unpacked. Above `largest` bytes: a stub with its beginning, length and digest.

    Raises BodyRefused: 413 above 20 MiB, 415 for an encoding that is not gzip, 400 for gzip that is none.
    """
    if encoding not in ("", "identity", "gzip"):
        raise BodyRefused(415, "only gzip is unpacked: send the body as it is, or Content-Encoding: gzip")
    parts: list[bytes] = []
    digest, length = hashlib.sha256(), 0
    async for part in _unpacked(chunks) if encoding == "gzip" else chunks:
        length += len(part)
        if length > REFUSED_ABOVE:
            raise BodyRefused(413, f"the body is over {REFUSED_ABOVE} bytes")
        digest.update(part)
        parts.append(part)
    content = b"".join(parts)
    if length <= largest:
        return Body(content)
    stub = {"beginning": b64encode(content[:BEGINNING]).decode(), "length": length, "sha256": digest.hexdigest()}
    return Body(json.dumps(stub).encode(), Reason.BODY_TOO_LARGE)


async def _unpacked(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        async for chunk in chunks:
            packed = chunk
            while packed:
                yield unpack.decompress(packed, BEGINNING)
                packed = unpack.unconsumed_tail
        yield unpack.flush()
    except zlib.error:
        raise BodyRefused(400, "the body is not gzip") from None
    if not unpack.eof:
        raise BodyRefused(400, "the gzip body ends too early")
