"""Canaries: marked strings, each its own, and a search for them in whatever encoding they may have been written."""

import base64
import json
import re
import secrets
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from tests.events import certiverse, registration
from tests.marked import unpacked

#: A mark between them is one of the address or the free text around it, as a person would write it.
_WORDS = 'said: "{}" & more\nÄ, 100 %'


class Canaries:
    """Hands out marks, and finds any of them. All begin alike, so that one search finds each."""

    def __init__(self) -> None:
        self.prefix = f"Kanari{secrets.token_hex(5)}"
        self.planted: list[str] = []
        raw = self.prefix.encode()
        each = [f"{one:02x}".encode() for one in raw]
        escaped = (b"\\\\u00", b"%", b"=")
        # Lower and upper case, hex, and every letter written as JSON, a URL or quoted-printable may write it.
        any_case = [re.escape(raw), b"".join(each), *(b"".join(sign + one for one in each) for sign in escaped)]
        as_base64 = [re.escape(base64.b64encode(b"x" * shift + raw)[4:-4]) for shift in range(3)]
        self._pattern = re.compile(b"(?i:" + b"|".join(any_case) + b")|" + b"|".join(as_base64))

    def mark(self) -> str:
        """One more."""
        self.planted.append(f"{self.prefix}n{len(self.planted):04d}")
        return self.planted[-1]

    def words(self) -> str:
        """A sentence with one, and with what encodings write differently."""
        return _WORDS.format(self.mark())

    def shown(self, content: bytes) -> list[bytes]:
        """Where they show, with what stands around: as it is, and in packed parts of it."""
        parts = [content, *unpacked(content), *_inflated(content)]
        around = (
            part[max(0, found.start() - 60) : found.end() + 60]
            for part in parts
            for found in self._pattern.finditer(part)
        )
        return list(around)

    def result(self, number: object, **more: Any) -> bytes:
        """A Certiverse result with a mark in all that is a person's, or that a person typed."""
        who = self.person(number) | {"delivery": f"dlv-{number}", "registration": f"reg-{number}"}
        body = json.loads(certiverse(**who | more))
        names = ("candidateId", "firstName", "lastName", "middleName", "phone")
        body["candidate"] |= {name: self.mark() for name in names}
        body["examReservation"] = {"notes": self.words(), "accommodations": [self.words()], "voucherId": self.mark()}
        body["examDelivery"]["deliveryExceptions"]["comment"] = self.words()
        body["customData"] = [{"name": self.mark(), "value": self.words()}, {"name": "Region", "value": self.words()}]
        return json.dumps(body, ensure_ascii=bool(len(self.planted) % 2)).encode()

    def person(self, number: object) -> dict[str, Any]:
        """The ids of who sat it: the same for the same number."""
        return {"student": f"{self.prefix}-stu-{number}", "email": f"{self.prefix}.{number}@example.org"}

    def open_one(self, number: object, **more: Any) -> dict[str, Any]:
        """That person's registration, as Rhythm has it."""
        who = self.person(number)
        told = {"student_id": who["student"], "email_address": who["email"], "name": self.words()}
        return registration(f"reg-{number}", **told | more)


def _inflated(content: bytes) -> Iterator[bytes]:
    """What any gzip in it holds."""
    at = content.find(b"\x1f\x8b\x08")
    while at >= 0:
        with suppress(zlib.error):
            yield zlib.decompressobj(wbits=31).decompress(content[at:])
        at = content.find(b"\x1f\x8b\x08", at + 1)
