"""Reads a request's body, unpacked, and says what of a body is kept. The second is the same for every way in."""

import hashlib
import json
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from schemas.event import Reason
from worker.credentials import without_keys
from worker.tenants import Credentials

#: Larger than this is refused outright.
REFUSED_ABOVE: Final = 20 * 2**20
#: Of a body that is too large to keep, this much is kept.
BEGINNING: Final = 64 * 1024
_GZIP: Final = ("gzip", "x-gzip")


class Refused(Exception):
    """A delivery is not taken: `status` and a sentence for the sender."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Body:
    """What was sent, or a stub of it, and the reason that a stub is kept."""

    content: bytes
    problem: str = ""


def keep(sent: bytes, listed: Sequence[Credentials], largest: int) -> Body:
    """What goes on the books: the body without the keys that a tenant's credentials expect in it, else as it was sent.

    Above `largest` bytes a stub: the beginning, the length and the digest of that.
    """
    content = without_keys(listed, sent)
    if len(content) <= largest:
        return Body(content)
    stub = {
        "beginning": b64encode(content[:BEGINNING]).decode(),
        "length": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return Body(json.dumps(stub).encode(), Reason.BODY_TOO_LARGE)


async def read_body(chunks: AsyncIterator[bytes], encoding: str) -> bytes:
    """The body, unpacked.

    Raises Refused: 413 above 20 MiB, 415 for an encoding that is not gzip, 400 for gzip that is none.
    """
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", *_GZIP):
        raise Refused(415, "only gzip is unpacked: send the body as it is, or Content-Encoding: gzip")
    parts: list[bytes] = []
    length = 0
    async for part in _unpacked(chunks) if encoding in _GZIP else chunks:
        length += len(part)
        if length > REFUSED_ABOVE:
            raise Refused(413, f"the body is over {REFUSED_ABOVE} bytes")
        parts.append(part)
    return b"".join(parts)


async def _unpacked(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What gzip packed, in small pieces. It may be in several members, one behind the other (RFC 1952, 2.2)."""
    unpack = _member()
    try:
        async for chunk in chunks:
            packed = chunk
            while packed:
                if unpack.eof:
                    unpack = _member()
                yield unpack.decompress(packed, BEGINNING)
                packed = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
        yield unpack.flush()
    except zlib.error:
        raise Refused(400, "the body is not gzip") from None
    if not unpack.eof:
        raise Refused(400, "the gzip body ends too early")


def _member() -> "zlib._Decompress":
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
