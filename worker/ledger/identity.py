"""Names made of candidate data: HMACs, so that Redis holds nothing personal in the clear and still finds it again.

The key is `EXAMRELAY_INDEX_KEY`, or one made at the first start and kept. It never changes: under another key no
sitting, and no candidate, would be found under the name that it was given before.
"""

import base64
import hashlib
import hmac
import os
from typing import Final

import redis

from worker.errors import ConfigurationError
from worker.ledger.client import text
from worker.ledger.keys import INDEX_KEY
from worker.ledger.sealed import SealBroken, Sealer, SealUnknown

_LENGTH: Final = 26
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"
#: Ten bits as two letters of base32: half as slow as `base64`, which is written in Python too.
_PAIRS: Final = [first + second for first in _LETTERS for second in _LETTERS]
#: Of `o-1…`, the part that is kept; and of the rest's name, 80 bits: it only tells one sitting's results apart.
_KIND, _DIGEST = len("o-1"), 16
_NEVER: Final = "It never changes: results and candidates would no longer be found under the names they were given."


class Identity:
    """Gives candidate data its name. Thread-safe."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, value: str, length: int = _LENGTH) -> str:
        """The name of a text, the same for the same text as long as the ledger lives: base32, five bits a character.

        `length`, an even number: the beginning of the same name.
        """
        digest = hmac.digest(self._key, value.encode("utf-8", "surrogatepass"), "sha256")
        bits = int.from_bytes(digest, "big") >> 8 * len(digest) - 5 * length
        return "".join([_PAIRS[bits >> place & 1023] for place in range(5 * length - 10, -1, -10)])

    def version(self, digest: str) -> str:
        """The name of an outcome's version, which says `o-` or `r-` and the digest's own version as before.

        A digest without a key could be reversed by trying: there are few possible scores and times.
        """
        return digest[:_KIND] + self.of(digest, _DIGEST)


def load_identity(client: "redis.Redis", given: bytes | None, sealer: Sealer) -> Identity:
    """The identity of this ledger, made at the first start. Of a key that was given only a fingerprint is kept.

    Raises ConfigurationError: the key is not the one that this ledger began with, or cannot be opened.
    """
    made = given or os.urandom(32)
    kept = "" if given else sealer.seal_text(base64.b64encode(made).decode(), INDEX_KEY)
    known = client.get(INDEX_KEY)  # first, because a Redis at its `maxmemory` refuses to set
    if known is None:
        client.set(INDEX_KEY, f"{_fingerprint(made)} {kept}", nx=True)
        known = client.get(INDEX_KEY)
    fingerprint, _, kept = text(known).partition(" ")
    if given is not None:
        if _fingerprint(given) != fingerprint:
            raise ConfigurationError(
                f"EXAMRELAY_INDEX_KEY ({_fingerprint(given)}) is not the key that this ledger began with "
                f"({fingerprint}). {_NEVER} {'Unset it: the key is in Redis.' if kept else 'Set the old one again.'}"
            )
        return Identity(given)
    if not kept:
        raise ConfigurationError(
            f"EXAMRELAY_INDEX_KEY is not set, and this ledger began with one ({fingerprint}): set it again. {_NEVER}"
        )
    return Identity(_kept_key(client, fingerprint, kept, sealer))


def _kept_key(client: "redis.Redis", fingerprint: str, kept: str, sealer: Sealer) -> bytes:
    """The key that is in Redis, which is sealed anew when the first of the payload keys is another by now."""
    try:
        encoded = sealer.open_text(kept, INDEX_KEY)
    except (SealUnknown, SealBroken) as error:
        raise ConfigurationError(f"the index key kept in Redis cannot be opened: {error.args[0]}") from None
    if not sealer.is_current(kept):
        client.set(INDEX_KEY, f"{fingerprint} {sealer.seal_text(encoded, INDEX_KEY)}")
    return base64.b64decode(encoded)


def _fingerprint(key: bytes) -> str:
    return hashlib.sha256(b"examrelay index key\0" + key).hexdigest()[:16]
