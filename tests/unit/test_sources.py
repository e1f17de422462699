"""Whatever the bytes: an outcome, None, or a refusal that says where and what, never whose."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas.event import Reason
from schemas.outcome import ExamOutcome, Source
from schemas.values import Payload
from tests import samples
from worker.errors import PermanentError
from worker.sources import event_id, read, validate

PAGE = (Path(__file__).parents[2] / "docs" / "fields.md").read_text()
CANARY = "Canary-Quetzal-7713"
SOURCES = list(Source)
BODIES = {source: [path.read_bytes() for path in samples.valid() if path.parts[-2] == source] for source in Source}
PATHS = st.one_of(st.just(""), st.sampled_from(["TEST_COMPLETED", "TEST_COMPLETED/x", "a/b/c", "%ff"]), st.text())
ODD = ["", " ", "NaN", "1e99999", "-1e-99999", "\x00", "9999-12-31T23:59-05:00", "0001-01-01T00:00+05:00", "1-1-1"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["", "NaN", "1e99999", "\x00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def answer(source: Source, body: bytes, path: str = "") -> ExamOutcome | PermanentError | None:
    """What reading comes to; any other exception is a failure of the test."""
    try:
        outcome = read(source, body, path)
    except PermanentError as refused:
        return refused
    if outcome:
        assert re.fullmatch("[or]-2[0-9a-f]{20}", outcome.version)
        assert outcome.delivery
    return outcome


def check(said: ExamOutcome | PermanentError | None) -> None:
    """A refusal has a reason of the two, a detail, and no cause: a cause would carry the input along."""
    if isinstance(said, PermanentError):
        assert said.reason in (Reason.INVALID_JSON, Reason.INVALID_PAYLOAD)
        assert said.detail
        assert said.__cause__ is None
        assert said.__suppress_context__


def places(document: Any) -> list[tuple[Any, ...]]:
    """Every place in a document, outermost first."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [(), *((key, *rest) for key, value in inner for rest in places(value))]


def put(document: Any, place: tuple[Any, ...], value: object) -> Any:
    if not place:
        return value
    at = document
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    return document


def marked(document: Any) -> Any:
    """The document with every text a canary."""
    if isinstance(document, dict):
        return {key: marked(value) for key, value in document.items()}
    if isinstance(document, list):
        return [marked(value) for value in document]
    return f"{CANARY} {document}" if isinstance(document, str) else document


@pytest.mark.parametrize("source", SOURCES)
@given(
    body=st.binary(max_size=200) | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()),
    path=PATHS,
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(source: Source, body: bytes, path: str) -> None:
    check(answer(source, body, path))


@pytest.mark.parametrize("source", SOURCES)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_value_in_any_place_of_a_valid_payload_is_read_or_refused(source: Source, data: st.DataObject) -> None:
    document = json.loads(data.draw(st.sampled_from(BODIES[source])))
    for _ in range(data.draw(st.integers(1, 3))):
        document = put(document, data.draw(st.sampled_from(places(document))), data.draw(JSON))
    check(answer(source, json.dumps(document).encode(), data.draw(PATHS)))


@pytest.mark.parametrize("source", SOURCES)
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_valid_payload_with_bytes_changed_is_read_or_refused(source: Source, data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(BODIES[source])))
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(body)))
        body[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check(answer(source, bytes(body)))


@pytest.mark.parametrize("source", SOURCES)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_refusal_never_repeats_a_value(source: Source, data: st.DataObject) -> None:
    document = marked(json.loads(data.draw(st.sampled_from(BODIES[source]))))
    place = data.draw(st.sampled_from(places(document)))
    document = put(document, place, data.draw(st.sampled_from([[CANARY], {CANARY: CANARY}, CANARY, None])))
    body = json.dumps(document).encode()
    cut = data.draw(st.none() | st.integers(0, len(body)))
    said = answer(source, body[:cut], data.draw(st.sampled_from(["", CANARY, f"TEST_COMPLETED/{CANARY}"])))
    if isinstance(said, PermanentError):
        assert "Canary" not in f"{said} {said!r} {said.args}"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.INVALID_JSON),
        (b"\xef\xbb\xbf", Reason.INVALID_JSON),
        (b"\x00", Reason.INVALID_JSON),
        (b"\xff\xfe{\x00}\x00", Reason.INVALID_JSON),
        (b'{"candidateId": "\\ud800"}', Reason.INVALID_PAYLOAD),
        (b'{"candidateId": "\xed\xa0\x80"}', Reason.INVALID_JSON),
        (b'{"a": ' + b"[" * 100_000, Reason.INVALID_JSON),
        (b'{"a": ' + b"9" * 100_000 + b"}", Reason.INVALID_PAYLOAD),
        (b"[1, 2", Reason.INVALID_JSON),
        (b"[" * 50 + b"]" * 50, Reason.INVALID_PAYLOAD),
        (b"[]", Reason.INVALID_PAYLOAD),
        (b"null", Reason.INVALID_PAYLOAD),
        (b"NaN", Reason.INVALID_PAYLOAD),
        (b'"text"', Reason.INVALID_PAYLOAD),
        (b"{}", Reason.INVALID_PAYLOAD),
        (b'{"exam": {"examCode": 1e999}, "id": -0.0, "examCode": NaN}', Reason.INVALID_PAYLOAD),
    ],
)
def test_odd_bytes_are_refused_with_a_reason(source: Source, body: bytes, reason: Reason) -> None:
    refused = answer(source, body)
    assert isinstance(refused, PermanentError)
    assert refused.reason is reason


@pytest.mark.parametrize("source", SOURCES)
def test_a_list_is_refused_with_what_to_do(source: Source) -> None:
    refused = answer(source, b"[" + BODIES[source][0] + b"]")
    assert isinstance(refused, PermanentError)
    assert refused.detail == "the body is not an object: send one object a request"


@pytest.mark.parametrize("source", SOURCES)
def test_a_byte_order_mark_is_ignored(source: Source) -> None:
    body = BODIES[source][0]
    assert answer(source, b"\xef\xbb\xbf" + body) == answer(source, body)


def twice(name: str, place: str, first: str, second: str) -> bytes:
    """A sample in which a member stands twice: `first` and `second` are JSON with their names."""
    at = samples.body(name).index(f'"{place}"'.encode())
    before = samples.body(name)[:at]
    rest = samples.body(name)[at:].split(b",", 1)[1]
    return before + f"{first}, {second},".encode() + rest


CERTIVERSE, DRILLSTER = ("certiverse/passed", Source.CERTIVERSE), ("drillster/regular", Source.DRILLSTER)


@pytest.mark.parametrize(
    ("sample", "place", "first", "second"),
    [
        (CERTIVERSE, "passFail", '"passFail": "Fail"', '"passFail": "Pass"'),
        (CERTIVERSE, "passFail", '"PassFail": "Fail"', '"passFail": "Pass"'),
        (CERTIVERSE, "passFail", '"passFail": "Pass"', '"PASSFAIL": false'),
        (CERTIVERSE, "passFail", '"pass_fail": "Pass"', '"passfail": "F"'),
        (CERTIVERSE, "reportedScore", '"reportedScore": 520.5', '"ReportedScore": 521'),
        (CERTIVERSE, "deliverableId", '"deliverableId": "a"', '"deliverableId": "b"'),
        (CERTIVERSE, "orgCandidateId", '"orgCandidateId": "S-1"', '"OrgCandidateID": "s-1"'),
        (CERTIVERSE, "sectionName", '"sectionName": "a"', '"sectionName": "b"'),
        (CERTIVERSE, "completeReasonCode", '"completeReasonCode": "auto ended"', '"CompleteReasonCode": "?"'),
        # Space between a name and its colon, which a quick count of names must not overlook.
        *[
            (CERTIVERSE, "passFail", f'"passFail"{space}: "Fail"', '"passFail": "Pass"')
            for space in ("\n", "\t", "  ", "\r\n", "\n ", " \t")
        ],
        (DRILLSTER, "completed", '"completed": "2016-03-29T15:33:48Z"', '"Completed": "2016-03-30T15:33:48Z"'),
        (DRILLSTER, "passed", '"passed": true', '"passed": false'),
        (DRILLSTER, "eventId", '"eventId": "a"', '"EVENTID": "A"'),
    ],
)
def test_a_member_said_twice_with_two_meanings_contradicts_itself(
    sample: tuple[str, Source], place: str, first: str, second: str
) -> None:
    outcome = read(sample[1], twice(sample[0], place, first, second))
    assert outcome
    assert outcome.contradiction
    assert f"{place}: present twice, with different values" in outcome.contradiction


@pytest.mark.parametrize(
    ("sample", "place", "first", "second"),
    [
        (CERTIVERSE, "passFail", '"passFail": "P"', '"PassFail": true'),
        (CERTIVERSE, "passFail", '"passFail": null', '"PassFail": "Pass"'),
        (CERTIVERSE, "passFail", '"PassFail": "passed"', '"passFail": " "'),
        (CERTIVERSE, "reportedScore", '"reportedScore": 520.5', '"reportedScore": "520.50"'),
        (
            CERTIVERSE,
            "deliveryCompletedDateTime",
            '"deliveryCompletedDateTime": "2026-03-04T15:33:30Z"',
            '"DeliveryCompletedDateTime": "2026-03-04T16:33:30+01:00"',
        ),
        (CERTIVERSE, "firstName", '"firstName": "a"', '"firstName": "b"'),
        (DRILLSTER, "passed", '"passed": true', '"Passed": "true"'),
    ],
)
def test_a_member_said_twice_with_one_meaning_is_said_once(
    sample: tuple[str, Source], place: str, first: str, second: str
) -> None:
    assert read(sample[1], twice(sample[0], place, first, second)) == read(sample[1], samples.body(sample[0]))


def test_an_object_said_twice_is_compared_whole() -> None:
    body = json.loads(samples.body("certiverse/passed"))
    same, other = json.dumps(body["examResult"]), json.dumps(body["examResult"] | {"scaled": 1})
    begun = samples.body("certiverse/passed").rstrip()[:-1]
    whole = read(Source.CERTIVERSE, samples.body("certiverse/passed"))
    assert read(Source.CERTIVERSE, begun + f', "examResult": {same}}}'.encode()) == whole
    told = read(Source.CERTIVERSE, begun + f', "ExamResult": {other}}}'.encode())
    assert told
    assert told.contradiction == "examResult: present twice, with different values"


def _pascal(document: Any) -> Any:
    if isinstance(document, dict):
        return {key[:1].upper() + key[1:]: _pascal(value) for key, value in document.items()}
    return [_pascal(value) for value in document] if isinstance(document, list) else document


@pytest.mark.parametrize("source", SOURCES)
def test_every_sample_is_read_in_pascal_case_as_in_its_own(source: Source) -> None:
    for body in BODIES[source]:
        pascal = json.dumps(_pascal(json.loads(body))).encode()
        told = read(source, body)
        if not (told and told.contradiction):  # of two values the one under the document's own name counts
            assert read(source, pascal) == told


@pytest.mark.parametrize(
    ("unread", "value"),
    [
        ("nickname", '"\\ud83d"'),
        ("nickname", '"' + "x" * 100_000 + '"'),
        ("huge", "9" * 10_000),
        ("infinite", "[NaN, Infinity, -Infinity, 1e999]"),
        ("deep", "[" * 300 + "]" * 300),
        ("\\ud83d", "1"),
        ("said", '{"id": 1, "id": 2, "items": [{"passFail": 1}, 7]}'),
    ],
)
@pytest.mark.parametrize("sample", [CERTIVERSE, DRILLSTER, ("prov/camel-case", Source.PROV)])
def test_what_is_not_read_may_be_anything_that_is_json(sample: tuple[str, Source], unread: str, value: str) -> None:
    body = samples.body(sample[0])
    assert read(sample[1], body.rstrip()[:-1] + f', "{unread}": {value}}}'.encode()) == read(sample[1], body)


def test_a_lone_surrogate_in_what_is_used_is_refused() -> None:
    refused = answer(Source.CERTIVERSE, samples.edited("certiverse/passed", {"candidate.orgCandidateId": "S\ud83d"}))
    assert isinstance(refused, PermanentError)
    assert refused.detail == "candidate.orgCandidateId: has half of a character"


def test_five_problems_are_named_and_the_rest_counted() -> None:
    numbers = ("rawScore", "percent", "scaled", "cutScore", "reportedScore", "maxRawScore")
    refused = answer(
        Source.CERTIVERSE, samples.edited("certiverse/passed", {f"examResult.{name}": "x" for name in numbers})
    )
    assert isinstance(refused, PermanentError)
    assert refused.detail.count("not a number") == 5
    assert refused.detail.endswith("; and 1 more")


def test_a_long_list_of_wrong_members_is_refused_at_the_first_one() -> None:
    body = samples.edited("drillster/regular", {"score.transformations": [7] * 100_000})
    refused = answer(Source.DRILLSTER, body)
    assert isinstance(refused, PermanentError)
    assert refused.detail == "score.transformations[0]: not an object"


def test_what_is_validated_can_be_transformed() -> None:
    payload = validate(Source.CERTIVERSE, samples.body("certiverse/passed"))
    assert payload
    assert payload.to_outcome() == read(Source.CERTIVERSE, samples.body("certiverse/passed"))


def test_the_event_id_is_the_documented_digest() -> None:
    parts = [b"acme", b"drillster", b"TEST_COMPLETED/e-1", b"{}"]
    digest = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
    expected = "evt_" + base64.b32encode(digest).decode().lower()[:26]
    assert event_id("acme", Source.DRILLSTER, "TEST_COMPLETED/e-1", b"{}") == expected
    assert expected == "evt_edoird4cxufd2uaardyllpbb5c"


def test_the_event_id_tells_apart_what_would_run_together() -> None:
    ids = {
        event_id("acme", Source.PROV, "", b"ab"),
        event_id("acme", Source.PROV, "a", b"b"),
        event_id("acme", Source.PROV, "ab", b""),
        event_id("acmea", Source.PROV, "", b"b"),
        event_id("acme", Source.DRILLSTER, "", b"ab"),
    }
    assert len(ids) == 5


@settings(deadline=None)
@given(tenant=st.text(), path=st.text() | st.just("\ud800"), body=st.binary())
def test_every_delivery_has_an_event_id(tenant: str, path: str, body: bytes) -> None:
    made = event_id(tenant, Source.PROV, path, body)
    assert made == event_id(tenant, Source.PROV, path, body)
    assert len(made) == 30


def test_every_place_that_is_read_has_its_line_in_the_page() -> None:
    words = set(re.findall(r"\w+", PAGE))
    read_by_us = {field.alias for model in _models() for field in model.model_fields.values()}
    assert len(read_by_us) >= 80
    assert read_by_us <= words


def test_every_test_and_sample_that_the_page_names_is_there() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named_tests = re.findall(r"`(test_\w{8,})`", PAGE)
    named_samples = re.findall(r"`((?:certiverse|drillster|prov)/[a-z/-]+)`", PAGE)
    assert len(named_tests) > 20
    assert [name for name in named_tests if f"def {name}(" not in tests] == []
    assert [name for name in named_samples if not (samples.FOLDER / f"{name}.json").exists()] == []


def _models(model: type[BaseModel] = Payload) -> list[type[BaseModel]]:
    """All models of payloads and of what is in them."""
    return [model, *(inner for subclass in model.__subclasses__() for inner in _models(subclass))]
