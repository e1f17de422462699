"""What is stored of a payload or an outcome: compressed, under a form byte that later forms can tell apart."""

import zstandard

#: zstd alone. Another byte will mean another form (encrypted); a reader that does not know it refuses.
PLAIN = b"\x01"


class Sealer:
    """Seals and opens. Not shared between threads: zstd contexts are not."""

    def __init__(self) -> None:
        self._compress = zstandard.ZstdCompressor(level=3).compress
        self._decompress = zstandard.ZstdDecompressor().decompress

    def seal(self, content: bytes) -> bytes:
        """The stored form of `content`."""
        return PLAIN + self._compress(content)

    def open(self, stored: bytes) -> bytes:
        """The content of a stored form. Raises ValueError for a form that this version does not know."""
        if stored[:1] != PLAIN:
            raise ValueError(f"stored form {stored[:1].hex()} is not known to this version")
        return self._decompress(stored[1:])
