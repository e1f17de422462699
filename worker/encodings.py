"""What a body that is not JSON looks like, and what its sender should do. Never quotes the body."""

import re
from typing import Final

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
