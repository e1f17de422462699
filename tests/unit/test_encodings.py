"""A body that is not JSON is buried with what it looks like and what its sender should do."""

import bz2
import gzip
import json
import lzma
import zlib
from base64 import b64encode

import pytest
import zstandard

from schemas.event import Reason
from schemas.outcome import Source
from worker.errors import PermanentError
from worker.sources import validate

CANARY = "Canary-Quetzal-7713"
TEXT = json.dumps({"candidate": {"firstName": f"José {CANARY}"}}, ensure_ascii=False)
WHOLE = TEXT.encode()


@pytest.mark.parametrize("source", list(Source))
@pytest.mark.parametrize(
    ("body", "told"),
    [
        *((TEXT.encode(name), "UTF-16: send UTF-8") for name in ("utf-16", "utf-16-le", "utf-16-be")),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "UTF-16: send UTF-8"),
        (f"\r\n {TEXT}".encode("utf-16-le"), "UTF-16: send UTF-8"),
        *((TEXT.encode(name), "UTF-32: send UTF-8") for name in ("utf-32", "utf-32-le", "utf-32-be")),
        *((TEXT.encode(name), "not UTF-8, such as Latin-1 or Windows-1252") for name in ("latin-1", "cp1252", "cp850")),
        (gzip.compress(WHOLE, mtime=0), "gzip without Content-Encoding: gzip"),
        *((zlib.compress(WHOLE, level), "zlib (deflate)") for level in (1, 6, 9)),
        (zstandard.compress(WHOLE), "zstd"),
        (bz2.compress(WHOLE), "a packed file"),
        (lzma.compress(WHOLE), "a packed file"),
        *((b64encode(one), "base64") for one in (WHOLE, b"{\n" + WHOLE, gzip.compress(WHOLE, mtime=0))),
        (b"<!DOCTYPE html><p>" + WHOLE, "HTML"),
        (b"\n<html>" + WHOLE, "HTML"),
        (b"<?xml version='1.0'?><result>" + WHOLE, "XML"),
        (b"<soap:Envelope>" + WHOLE, "XML"),
        (b"payload=" + WHOLE, "a form"),
        (b"%7B%22candidate%22", "a form"),
        (b'--x1\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + WHOLE, "a multipart form"),
        (WHOLE + b"\0", "JSON with bytes of zero"),
    ],
)
def test_the_detail_says_what_it_looks_like_and_quotes_nothing(source: Source, body: bytes, told: str) -> None:
    with pytest.raises(PermanentError) as caught:
        validate(source, body)
    assert caught.value.reason is Reason.INVALID_JSON
    assert f"not JSON: it looks like {told}" in caught.value.detail or f"text that is {told}" in caught.value.detail
    assert "Quetzal" not in caught.value.detail


@pytest.mark.parametrize("body", [b"", b"{", b"not JSON", b"[1, 2", b'{"a": 1,}', b"{'a': 1}", b"\xef\xbb\xbf"])
def test_what_looks_like_nothing_else_is_told_as_the_parser_tells_it(body: bytes) -> None:
    with pytest.raises(PermanentError) as caught:
        validate(Source.CERTIVERSE, body)
    assert "looks like" not in caught.value.detail
