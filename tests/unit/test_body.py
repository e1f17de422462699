"""What is read of a request's body, and what of a body is kept."""

import asyncio
import gzip
import hashlib
import json
import zlib
from base64 import b64decode
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from schemas.event import Reason
from worker.body import BEGINNING, REFUSED_ABOVE, Body, Refused, keep, read_body
from worker.tenants import BodyKeys


def read(chunks: Sequence[bytes], encoding: str = "") -> bytes:
    async def told() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return asyncio.run(read_body(told(), encoding))


def refusal(chunks: Sequence[bytes], encoding: str = "") -> int:
    with pytest.raises(Refused) as caught:
        read(chunks, encoding)
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


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " x-gzip "])
def test_gzip_is_unpacked_however_it_is_written(encoding: str) -> None:
    assert read([gzip.compress(b"{}")], encoding) == b"{}"


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
def test_without_an_encoding_the_body_is_what_was_sent(encoding: str) -> None:
    assert read([gzip.compress(b"{}", mtime=0)], encoding) == gzip.compress(b"{}", mtime=0)


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "ÿ"])
def test_another_encoding_is_refused(encoding: str) -> None:
    assert refusal([b"{}"], encoding) == 415


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"{}",
        gzip.compress(b"{}")[:-1],
        gzip.compress(b"{}")[:5],
        gzip.compress(b"{}") + b"{}",
        zlib.compress(b"{}"),
    ],
)
def test_gzip_that_is_none_or_not_whole_is_refused(packed: bytes) -> None:
    assert refusal([packed], "gzip") == 400


def test_no_more_than_twenty_mib_is_read_packed_or_not() -> None:
    piece = bytes(2**20)
    assert len(read([piece] * 20)) == REFUSED_ABOVE
    assert refusal([*[piece] * 20, b"x"]) == 413
    bomb = gzip.compress(bytes(200 * 2**20), 9)
    assert len(bomb) < 2**20
    assert refusal([bomb], "gzip") == 413


def test_a_body_up_to_the_limit_is_kept_as_it_came() -> None:
    assert keep(b"x" * 1024, (), 1024) == Body(b"x" * 1024)
    assert keep(b"", (), 1024) == Body(b"")


def test_of_a_larger_one_its_beginning_length_and_digest_are_kept() -> None:
    sent = bytes(range(256)) * 1024
    kept = keep(sent, (), 1024)
    assert kept.problem == Reason.BODY_TOO_LARGE
    stub = json.loads(kept.content)
    assert b64decode(stub["beginning"]) == sent[:BEGINNING]
    assert (stub["length"], stub["sha256"]) == (len(sent), hashlib.sha256(sent).hexdigest())


def test_not_even_the_beginning_holds_a_key() -> None:
    listed = [BodyKeys.model_construct(kind="body-keys", keys={"apiKey": SecretStr("k3y")})]
    sent = json.dumps({"apiKey": "k3y", "filling": "x" * 5000}).encode()
    kept = keep(sent, listed, 1024)
    assert b'"apiKey": ""' in b64decode(json.loads(kept.content)["beginning"])
    assert keep(sent.replace(b"k3y", b""), listed, 1024) == kept
