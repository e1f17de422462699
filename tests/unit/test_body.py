"""How much of a request's body is read, and what is recorded of it."""

import asyncio
import gzip
import hashlib
import json
import time
import zlib
from base64 import b64decode
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from schemas.event import Reason
from worker.receiver.body import BEGINNING, REFUSED_ABOVE, Body, Reader, Refused, is_packed, keep
from worker.receiver.credentials import Proof
from worker.tenants import BodyKeys, Credentials, HeaderCredentials

HEADER = HeaderCredentials.model_construct(kind="header", name="X-Key", value=SecretStr("k"))
KEYS = BodyKeys.model_construct(kind="body-keys", keys={"apiKey": SecretStr("k3y")})
KNOWN = {"x-key": "k"}


def kept(
    chunks: Iterable[bytes],
    encoding: str = "",
    *,
    listed: Sequence[Credentials] = (HEADER,),
    headers: dict[str, str] = KNOWN,
    largest: int = REFUSED_ABOVE,
) -> Body:
    """What is kept of a body that comes in these pieces."""

    async def told() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return asyncio.run(Reader(largest).read(told(), is_packed([encoding]), Proof(listed, headers)))


def read(chunks: Sequence[bytes], encoding: str = "") -> bytes:
    return kept(chunks, encoding).content


def refusal(chunks: Iterable[bytes], encoding: str = "", **more: Any) -> int:
    with pytest.raises(Refused) as caught:
        kept(chunks, encoding, **more)
    return caught.value.status


def cut(body: bytes, at: list[int]) -> list[bytes]:
    """The body in pieces, some of them empty."""
    places = [0, *sorted(place % (len(body) + 1) for place in at), len(body)]
    return [body[start:end] for start, end in pairwise(places)]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3), st.lists(st.integers(0, 2000), max_size=6))
def test_a_body_arrives_in_any_pieces_and_gzip_in_any_number_of_members(parts: list[bytes], at: list[int]) -> None:
    whole = b"".join(parts)
    assert read(cut(whole, at)) == whole
    assert read(cut(b"".join(gzip.compress(part) for part in parts), at), "gzip") == whole


@pytest.mark.parametrize(
    "encoding", ["gzip", "GZIP", " x-gzip ", "gzip, identity", "identity,gzip", "utf-8, gzip", '"gzip"']
)
def test_gzip_is_unpacked_however_it_is_written(encoding: str) -> None:
    assert read([gzip.compress(b"{}")], encoding) == b"{}"


@pytest.mark.parametrize(
    "encoding",
    [
        "",
        "identity",
        "Identity",
        "utf-8",
        "UTF8",
        "utf8",
        " utf-8 ",
        '"utf-8"',
        "charset=utf-8",
        "utf-16le",
        "US-ASCII",
        "ascii",
        "iso-8859-1",
        "ISO8859-15",
        "latin1",
        "windows-1252",
        "cp1252",
        "unicode",
        "8bit",
        "binary",
        "none",
        "identity, utf-8",
        ",",
        "identity,",
    ],
)
def test_without_an_encoding_the_body_is_what_was_sent(encoding: str) -> None:
    assert read([gzip.compress(b"{}", mtime=0)], encoding) == gzip.compress(b"{}", mtime=0)


@pytest.mark.parametrize(
    "encoding", ["br", "deflate", "zstd", "compress", "gzip, gzip", "gzip, br", "utf-8, br", "ÿ", "x" * 99999]
)
def test_another_encoding_is_refused(encoding: str) -> None:
    assert refusal([b"{}"], encoding) == 415


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"{}",
        gzip.compress(b"{}", mtime=0)[:-1],
        gzip.compress(b"{}", mtime=0)[:5],
        gzip.compress(b"{}", mtime=0) + b"{}",
        zlib.compress(b"{}"),
    ],
)
def test_invalid_or_incomplete_gzip_is_refused(packed: bytes) -> None:
    assert refusal([packed], "gzip") == 400


def test_no_more_than_twenty_mib_is_read_packed_or_not() -> None:
    piece = bytes(2**20)
    assert len(read([piece] * 20)) == REFUSED_ABOVE
    assert refusal([*[piece] * 20, b"x"]) == 413
    bomb = gzip.compress(bytes(200 * 2**20), 9)
    assert len(bomb) < 2**20
    assert refusal([bomb], "gzip") == 413


def test_no_more_is_read_packed_than_unpacked_nor_many_members() -> None:
    nothing = gzip.compress(b"")
    assert refusal([nothing * 1001], "gzip") == 400
    flushed = zlib.compressobj(wbits=31)
    endless = [flushed.compress(b"x"), *[flushed.flush(zlib.Z_SYNC_FLUSH) + b"\0\0\0\xff\xff" * 2**17] * 40]
    assert refusal(endless, "gzip") == 413


def _counted(pieces: int, told: list[int]) -> Iterator[bytes]:
    for number in range(pieces):
        told.append(number)
        yield b'{"apiKey":"no"}' + b" " * 2**16


def test_of_an_unknown_senders_body_only_the_searched_part_is_read() -> None:
    told = list[int]()
    assert refusal(_counted(300, told), listed=[KEYS], headers={}, largest=2**20) == 401
    assert len(told) < 20
    bomb = b'{"apiKey":"no",' + b'"":0,' * 2**22
    assert refusal([gzip.compress(bomb)], "gzip", listed=[KEYS], headers={}, largest=2**20) == 401


@pytest.mark.parametrize(
    "unit", [b'"":0,', b'"apiKey":"k3y",', b'"x":{"apiKey":"k3y"},', b'"\\n":"\\\\",', b"[", b'"x":[[1]],']
)
@pytest.mark.parametrize("key", [b'"apiKey":"no",', b""])
def test_an_unknown_senders_body_costs_milliseconds_whatever_is_in_it(unit: bytes, key: bytes) -> None:
    body = b"{" + key + b'"a":"' + unit * (2**21 // len(unit))
    began = time.process_time()
    assert refusal([body], listed=[KEYS], headers={}, largest=2**21) == 401
    assert time.process_time() - began < 0.5  # some 30 ms; 0.5 to 20 s as it was, and it may be a slow machine


def test_over_the_limit_the_keys_are_found_in_the_searched_beginning_and_the_stub_is_the_same_with_other_keys() -> None:
    other = BodyKeys.model_construct(kind="body-keys", keys={"apiKey": SecretStr("0ther")})

    def sent(key: str) -> bytes:
        return json.dumps({"x": "x" * 3 * 2**20, "apiKey": key, "y": "y" * 2**22}).encode()

    first, rotated = (kept([sent(key)], listed=[KEYS, other], headers={}, largest=2**22) for key in ("k3y", "0ther"))
    assert first == rotated == keep(sent("k3y"), [KEYS, other], 2**22)
    assert first.problem == Reason.BODY_TOO_LARGE
    assert json.loads(first.content)["length"] == len(sent(""))
    assert refusal([sent("k3y")], listed=[KEYS], headers={}, largest=2**21) == 401
    assert refusal([sent("k3y"), b"x" * 2**24], listed=[KEYS], headers={}, largest=2**22) == 413


@given(st.integers(0, 400_000), st.lists(st.integers(0, 400_000), max_size=3), st.booleans())
@settings(max_examples=30)
def test_however_it_comes_the_same_is_kept(size: int, at: list[int], packed: bool) -> None:
    body = b'{"apiKey": "k3y", "x": "' + bytes(range(35, 92)) * (size // 57) + b'"}'
    way = gzip.compress(body, 1) if packed else body
    known = kept(cut(way, at), "gzip" if packed else "", listed=[HEADER, KEYS], largest=200_000)
    by_key = kept(cut(way, at), "gzip" if packed else "", listed=[HEADER, KEYS], headers={}, largest=200_000)
    assert known == by_key == keep(body, [HEADER, KEYS], 200_000)


def test_few_large_bodies_of_unknown_senders_are_read_at_once_and_others_meanwhile() -> None:
    async def endless(release: asyncio.Event) -> AsyncIterator[bytes]:
        yield b" " * (BEGINNING + 1)
        await release.wait()

    async def small() -> AsyncIterator[bytes]:
        yield b'{"apiKey":"k3y"}'

    async def many() -> list[Any]:
        reader, release = Reader(2**21), asyncio.Event()
        reading = [asyncio.create_task(reader.read(endless(release), False, Proof([KEYS], {}))) for _ in range(20)]
        await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        await reader.read(small(), False, Proof([KEYS], {}))
        known = asyncio.create_task(reader.read(endless(release), False, Proof([HEADER], KNOWN)))
        release.set()
        await known
        return await asyncio.gather(*reading, return_exceptions=True)

    assert sorted(refused.status for refused in asyncio.run(many())) == [401] * 16 + [503] * 4


def test_a_body_up_to_the_limit_is_kept_as_it_came() -> None:
    assert keep(b"x" * 1024, (), 1024) == Body(b"x" * 1024)
    assert keep(b"", (), 1024) == Body(b"")


def test_of_a_larger_one_its_beginning_length_and_digest_are_kept() -> None:
    sent = bytes(range(256)) * 1024
    stubbed = keep(sent, (), 1024)
    assert stubbed.problem == Reason.BODY_TOO_LARGE
    stub = json.loads(stubbed.content)
    assert b64decode(stub["beginning"]) == sent[:BEGINNING]
    assert (stub["length"], stub["sha256"]) == (len(sent), hashlib.sha256(sent).hexdigest())


def test_not_even_the_beginning_holds_a_key() -> None:
    listed = [KEYS]
    sent = json.dumps({"apiKey": "k3y", "filling": "x" * 5000}).encode()
    stubbed = keep(sent, listed, 1024)
    assert b'"apiKey": ""' in b64decode(json.loads(stubbed.content)["beginning"])
    assert keep(sent.replace(b"k3y", b""), listed, 1024) == stubbed
