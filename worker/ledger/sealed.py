"""What is stored of a payload: compressed, sealed when there are keys, under a form byte.

Form 1 is zstd. Form 2 is zstd, then AES-256-GCM: the key's id (4 bytes), a random nonce (12), ciphertext and tag. What
it is about (an event's id) goes in as associated data: content that got under another event does not open there.
Random nonces are safe for 2**32 seals a key: at a million events a day, a new key every two years.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from datetime import timedelta
from threading import local
from typing import Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.event import Reason
from worker.errors import TransientError

PLAIN: Final = b"\x01"
SEALED: Final = b"\x02"
#: Before a sealed text, which stands where plain text may; no JSON begins with it.
_TEXT: Final = "~"
_ID, _NONCE = 4, 12
#: What cannot be opened is looked at again then: somebody has to bring the key, or the newer version.
PAUSE: Final = timedelta(minutes=1)


class SealUnknown(TransientError):
    """Sealed under a key, or in a form, that this process does not have. It spends no attempt of the event."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.INTERNAL_ERROR, detail, PAUSE)
        self.args = (detail,)


class SealBroken(Exception):
    """Does not open under its own key: altered, cut short, or another event's."""


def key_id(key: bytes) -> bytes:
    """A key's id: a digest, which does not reveal the key."""
    return hashlib.sha256(b"examrelay payload key\0" + key).digest()[:_ID]


class _Zstd(local):
    """The calling thread's own contexts: two threads in one context at once end the process."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=3).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


class Sealer:
    """Seals under the first key, opens under each. For all threads of a process."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._zstd = _Zstd()
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self._first = next(iter(self._ciphers), None)

    def seal(self, content: bytes, about: str) -> bytes:
        """The stored form of `content`, which opens only with the same `about`."""
        compressed = self._zstd.compress(content)
        return PLAIN + compressed if self._first is None else SEALED + self._encrypt(self._first, compressed, about)

    def open(self, stored: bytes, about: str) -> bytes:
        """The content of a stored form. Raises SealUnknown, SealBroken."""
        form, rest = stored[:1], stored[1:]
        if form not in (PLAIN, SEALED):
            raise SealUnknown(f"stored form {form.hex() or 'none'} is not known to this version of examrelay")
        compressed = self._decrypt(rest, about) if form == SEALED else rest
        try:
            return self._zstd.decompress(compressed)
        except zstandard.ZstdError:
            raise SealBroken("not zstd") from None

    def seal_text(self, text: str, about: str) -> str:
        """As `seal`, of a short text, for where text is stored; without keys the text as it is."""
        if self._first is None:
            return text
        return _TEXT + base64.b64encode(self._encrypt(self._first, text.encode(), about)).decode()

    def open_text(self, stored: str, about: str) -> str:
        """The text of a stored form. Raises SealUnknown, SealBroken."""
        if not stored.startswith(_TEXT):
            return stored
        return self._decrypt(base64.b64decode(stored[1:]), about).decode()

    def is_current(self, stored: str) -> bool:
        """Whether `seal_text` would seal it as it is: under the first key, or not at all."""
        if self._first is None or not stored.startswith(_TEXT):
            return self._first is None
        return base64.b64decode(stored[1:])[:_ID] == self._first

    def _encrypt(self, key: bytes, content: bytes, about: str) -> bytes:
        nonce = os.urandom(_NONCE)
        return key + nonce + self._ciphers[key].encrypt(nonce, content, about.encode())

    def _decrypt(self, sealed: bytes, about: str) -> bytes:
        key, nonce, content = sealed[:_ID], sealed[_ID : _ID + _NONCE], sealed[_ID + _NONCE :]
        cipher = self._ciphers.get(key)
        if cipher is None:
            raise SealUnknown(f"sealed under key {key.hex()}, which EXAMRELAY_PAYLOAD_KEYS does not hold: add it again")
        try:
            return cipher.decrypt(nonce, content, about.encode())
        except (InvalidTag, ValueError):
            raise SealBroken(f"does not open under key {key.hex()}") from None
