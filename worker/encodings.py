"""What a body that is not JSON looks like, and what it may read as: for its sender, and to find whom it is about."""

import html
import quopri
import re
import zlib
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from typing import Final
from urllib.parse import unquote_to_bytes

#: By a body's first bytes. Zero bytes show UTF-16 and UTF-32 without a mark, as `{` comes first (RFC 4627, 3).
_BEGINNINGS: Final = (
    (rb"\xff\xfe\0\0|\0\0\xfe\xff|[^\0]\0\0\0|\0\0\0[^\0]", "UTF-32: send UTF-8"),
    (rb"\xff\xfe|\xfe\xff|[^\0]\0|\0[^\0]", "UTF-16: send UTF-8"),
    (rb"\x1f\x8b", "gzip without Content-Encoding: gzip: send that header with it"),
    (rb"\x78[\x01\x5e\x9c\xda]", "zlib (deflate): send it as it is, or gzip with Content-Encoding: gzip"),
    (rb"\x28\xb5\x2f\xfd", "zstd: send it as it is, or gzip with Content-Encoding: gzip"),
    (rb"BZh|\xfd7zXZ|PK\x03\x04", "a packed file: send its content as it is, or gzip with Content-Encoding: gzip"),
    (rb"H4sI|eyJ|ew[0op]", "base64: send the JSON itself"),
    (rb"\s*<(!doctype\s+html|html|head|body)\b", "HTML, such as an error page: send the JSON itself"),
    (rb"\s*<[?!a-z]", "XML: send JSON"),
    (rb"--[^\r\n]+\r?\nContent-", "a multipart form: send the JSON itself as the body"),
    (rb"[\w.%+*\[\]-]+=|%7b", "a form (URL-encoded): send the JSON itself as the body"),
)
#: JSON's escapes; runs of base64, in either alphabet.
_ESCAPE: Final = re.compile(rb"\\+(?:u([0-9a-fA-F]{4})|[bfnrt]?)")
_BASE64: Final = re.compile(rb"[\w+/-]{16,}", re.ASCII)
_EXPRESSIONS: Final = tuple((re.compile(beginning, re.IGNORECASE), advice) for beginning, advice in _BEGINNINGS)


def looks_like(body: bytes) -> str:
    """What it looks like and what to do, such as `UTF-16: send UTF-8`; empty if it looks like nothing of these."""
    for beginning, advice in _EXPRESSIONS:
        if beginning.match(body):
            return advice
    try:
        body.decode()
    except UnicodeDecodeError:
        return "text that is not UTF-8, such as Latin-1 or Windows-1252: send UTF-8"
    return "JSON with bytes of zero behind it: leave them out" if body.endswith(b"\0") else ""


def readings(body: bytes, deep: int = 3) -> set[str]:
    """What a body may read as: as it is, and without the usual encodings, up to `deep` of them one within another."""
    read, plainer = set[bytes](), {body}
    for _ in range(deep + 1):
        read |= plainer
        plainer = {plain for one in plainer for plain in _plainer(one)} - read
    return {one.decode(errors="replace") for one in read}


def _plainer(body: bytes) -> Iterator[bytes]:
    """A body without one encoding; the same where it has none such. Of packed content 20 MiB at most."""
    yield _ESCAPE.sub(lambda one: chr(int(one[1], 16)).encode(errors="replace") if one[1] else b" ", body)
    yield unquote_to_bytes(body.replace(b"+", b" "))
    yield quopri.decodestring(body)
    yield html.unescape(body.decode(errors="replace")).encode()
    for coding in ("utf-16-le", "utf-16-be") if b"\0" in body else ("latin-1",):
        yield body.decode(coding, "replace").encode(errors="replace")
    for run in _BASE64.findall(body) + _BASE64.findall(b"".join(body.split())):
        with suppress(ValueError):
            yield b64decode(run.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(run) % 4))
    with suppress(zlib.error):
        yield zlib.decompressobj(wbits=47).decompress(body, 20 * 2**20)  # gzip or zlib
