"""Payloads with marked strings, and a search for the marks in everything that Redis holds."""

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import redis
import zstandard

from tests.events import certiverse, registration
from worker.ledger.client import text

ONE, OTHER = bytes(range(32)), bytes(range(32, 64))
#: In every payload. Lower case, as e-mail addresses are made.
MARK = f"marked{secrets.token_hex(6)}"
#: A result is personal as well: its score, and the verdict as it is stored.
SCORE, VERDICT = 71.93, '"passed"'
Stored = dict[str, list[bytes]]


def keyed(*keys: bytes) -> str:
    return ",".join(base64.b64encode(key).decode() for key in keys)


def marked(number: object, **more: Any) -> bytes:
    """A Certiverse result with a mark in everything that is a person's, or that a person typed."""
    told = {"student": f"{MARK}-student-{number}", "email": f"{MARK}-{number}@example.org", "score": SCORE}
    told |= {"delivery": f"dlv-{number}", "registration": f"reg-{number}"}
    body = json.loads(certiverse(**told | more))
    body["candidate"] |= {"candidateId": f"{MARK}-id", "firstName": f"{MARK}-first", "lastName": f"{MARK}-last"}
    body["examReservation"] = {"notes": f"{MARK}-notes", "accommodations": [f"{MARK}-accommodation"]}
    body["examDelivery"]["deliveryExceptions"]["comment"] = f"{MARK}-comment"
    return json.dumps(body).encode()


def theirs(number: object, **more: Any) -> dict[str, Any]:
    """The registration that `marked` is about."""
    told = {"student_id": f"{MARK}-student-{number}", "email_address": f"{MARK}-{number}@example.org"}
    return registration(f"reg-{number}", name=f"{MARK}-first {MARK}-last", **told | more)


def dump(client: "redis.Redis") -> Stored:
    """Every key's name and content, as commands return it and as DUMP does."""
    found: Stored = {}
    reads: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda name: client.lrange(name, 0, -1),
        b"set": client.smembers,
        b"zset": lambda name: client.zrange(name, 0, -1, withscores=True),
        b"stream": client.xrange,
        b"none": lambda _: (),  # gone since: a worker's
    }
    for name in client.scan_iter(count=1000):
        parts = list(_flat(reads[client.type(name)](name)))
        found[text(name)] = [name, *parts, client.dump(name) or b"", *(one for part in parts for one in unpacked(part))]
    return found


def unpacked(part: bytes) -> Iterator[bytes]:
    """What any zstd frame in it holds: compressed is not encrypted, though it hides a mark just as well."""
    at = part.find(zstandard.FRAME_HEADER)
    while at >= 0:
        with suppress(zstandard.ZstdError):
            yield zstandard.ZstdDecompressor().decompressobj().decompress(part[at:])
        at = part.find(zstandard.FRAME_HEADER, at + 1)


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple | set):
        for one in value:
            yield from _flat(one)
    else:
        yield value if isinstance(value, bytes) else str(value).encode()


def spellings(what: str) -> list[bytes]:
    """As it is, in hex, and the three ways in which base64 may show it."""
    raw = what.encode()
    turned = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)] if len(raw) > 8 else []
    return [raw, raw.hex().encode(), *turned]


def having(stored: Stored, *marks: str) -> set[str]:
    wanted = [spelling for mark in marks for spelling in spellings(mark)]
    return {name for name, parts in stored.items() if any(shows(part, wanted) for part in parts)}


def shows(part: bytes, wanted: list[bytes]) -> bool:
    """Whether any of these is in it, however its letters are written."""
    return any(one in part or one in part.lower() for one in wanted)
