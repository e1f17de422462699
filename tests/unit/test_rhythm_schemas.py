"""Rhythm's record is read tolerantly and exactly, and patches are written exactly."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.rhythm import BatchResult, Page, PatchOperation, Registration, Status, encode

CANDIDATE = "jane.canary@example.org"


def read(**members: Any) -> Registration:
    return Registration.model_validate_json(json.dumps({"id": "reg-1"} | members))


@pytest.mark.parametrize(
    ("sent", "score"),
    [
        ("70.1", "70.1"),
        ("70.10", "70.1"),
        ("0.1", "0.1"),
        ("70", "70"),
        ("70.0", "70"),
        ("1e2", "100"),
        ("99.999999", "99.999999"),
        ('"70.1"', "70.1"),
    ],
)
def test_a_score_is_the_decimal_that_was_written(sent: str, score: str) -> None:
    assert Registration.model_validate_json(f'{{"id":"reg-1","score":{sent}}}').score == Decimal(score)


def test_only_the_id_is_required_and_null_is_absent() -> None:
    bare = read()
    nulls = read(**dict.fromkeys(set(Registration.model_fields) - {"id"}))
    assert bare == nulls
    assert bare.score is None
    assert bare.custom_field_values is None


@pytest.mark.parametrize("body", ['{"message": "no"}', "{}", "[]", '{"id": ""}', '{"id": null}'])
def test_a_record_without_an_id_is_not_a_registration(body: str) -> None:
    with pytest.raises(ValidationError):
        Registration.model_validate_json(body)


@pytest.mark.parametrize(
    ("member", "odd"),
    [
        ("score", "n/a"),
        ("score", True),
        ("sys_version", 2.5),
        ("sys_locked", "perhaps"),
        ("exam_date", {"year": 2026}),
        ("custom_field_values", "none"),
        ("custom_field_values", [1]),
        ("status", ["passed"]),
    ],
)
def test_a_member_of_another_type_counts_as_absent_and_spoils_nothing_else(member: str, odd: Any) -> None:
    registration = read(**{"exam_id": "exam-1", member: odd})
    assert registration.exam_id == "exam-1"
    assert getattr(registration, member) is None


def test_numbers_in_place_of_texts_and_floats_in_place_of_counts_are_read() -> None:
    registration = read(student_id=1234, sys_version=3.0, sys_locked=True)
    assert (registration.student_id, registration.sys_version, registration.sys_locked) == ("1234", 3, True)


def test_an_unknown_status_word_is_kept_and_a_known_one_compares_as_status() -> None:
    assert read(status="suspended").status == "suspended"
    assert read(status="no show").status == Status.NO_SHOW


def test_custom_field_values_are_kept_whole() -> None:
    values = [{"custom_field_id": "a__c", "string_value": "x", "unheard_of": [1, {"y": 2.5}]}]
    assert read(custom_field_values=values).custom_field_values == values


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T10:30:00.000Z", datetime(2026, 3, 1, 10, 30, tzinfo=UTC)),
        ("2026-03-01T10:30:00+02:00", datetime(2026, 3, 1, 8, 30, tzinfo=UTC)),
        ("2026-03-01T10:30", datetime(2026, 3, 1, 10, 30, tzinfo=UTC)),
        ("next week", None),
        ("0001-01-01T00:00:00+12:00", None),
        (None, None),
    ],
)
def test_dates_are_kept_as_text_and_read_as_instants(text: str | None, instant: datetime | None) -> None:
    registration = read(date=text, exam_date=text)
    assert registration.exam_date == text
    assert (registration.registered_at, registration.exam_at) == (instant, instant)


def test_neither_texts_nor_errors_of_a_registration_tell_of_a_person() -> None:
    registration = read(email_address=CANDIDATE, student_id=CANDIDATE, score=70.1, status="passed")
    page = Page.model_validate({"Items": [registration]})
    operation = PatchOperation(op="add", path="/score", value=CANDIDATE)
    result = BatchResult(id="reg-1", email_address=CANDIDATE, object=registration)
    with pytest.raises(ValidationError) as caught:
        Page.model_validate_json(json.dumps({"Items": [{"email_address": CANDIDATE}]}))
    for text in (str(registration), repr(registration), repr(page), repr(operation), repr(result), str(caught.value)):
        assert CANDIDATE not in text
        assert "70.1" not in text


@pytest.mark.parametrize(
    ("value", "json_text"),
    [
        (Decimal("70.1"), "70.1"),
        (Decimal("70.10"), "70.1"),
        (Decimal("70"), "70"),
        (Decimal("70.0"), "70"),
        (Decimal("1E+2"), "100"),
        (Decimal("0.07"), "0.07"),
        (Decimal("-0"), "0"),
        (3, "3"),
        ([{"numeric_value": Decimal("2.50")}], '[{"numeric_value":2.5}]'),
        ("70.1", '"70.1"'),
        (None, "null"),
        (True, "true"),
    ],
)
def test_decimals_become_numbers_in_their_shortest_form(value: Any, json_text: str) -> None:
    assert encode(value).decode() == json_text


@pytest.mark.parametrize(("value", "error"), [(Decimal("NaN"), ValueError), ({1, 2}, TypeError)])
def test_what_has_no_json_form_is_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        encode(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("70.10"), "70.1"),
        (3, "3"),
        ("passed", "passed"),
        (True, "true"),
        (None, None),
        ([{"numeric_value": Decimal("1.5"), "list_value": ["x"]}], '[{"numeric_value":1.5,"list_value":["x"]}]'),
    ],
)
def test_values_as_text_are_the_texts_of_the_native_ones(value: Any, text: str | None) -> None:
    operation = PatchOperation(op="test", path="/x", value=value)
    assert operation.directive(as_text=True) == {"op": "test", "path": "/x", "value": text}
    assert operation.directive() == {"op": "test", "path": "/x", "value": value}


def test_a_removal_has_no_value() -> None:
    assert PatchOperation(op="remove", path="/score").directive() == {"op": "remove", "path": "/score"}


def test_a_page_needs_items_so_that_an_error_is_not_an_empty_page() -> None:
    with pytest.raises(ValidationError):
        Page.model_validate_json('{"message": "internal"}')
    assert Page.model_validate_json('{"Items": null}').items is None
