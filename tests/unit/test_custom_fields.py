"""Custom fields: what fills them, and the smallest patch that says so."""

from decimal import Decimal
from typing import Any

import pytest

from schemas.outcome import Candidate, ExamOutcome, Part, Source
from worker.exam_map import CustomField
from worker.rules.custom_fields import Fields, cleared, difference, fields_of, operations

OUTCOME = ExamOutcome(
    source=Source.CERTIVERSE,
    delivery="dlv-1",
    exam_codes=("CERT-1",),
    candidate=Candidate(),
    scores={"percent": Decimal("82.50")},
    details={"examFormName": "Form A", "timeExtension": True, "customData.Region": "North"},
    parts=(Part(kind="topic", name="Ethics v1.2", scores={"percent": Decimal(50)}),),
    completed_at="2026-05-04T12:30:00Z",
)
A, B = "exams__a__c", "exams__b__c"


@pytest.mark.parametrize(
    ("value", "kind", "member"),
    [
        ("scores.percent", None, {"numeric_value": Decimal("82.50")}),
        ("scores.percent", "string", {"string_value": "82.50"}),
        ("details.examFormName", None, {"string_value": "Form A"}),
        ("details.customData.Region", None, {"string_value": "North"}),
        ("details.timeExtension", None, {"boolean_value": True}),
        ("parts.topic.Ethics v1.2.percent", None, {"numeric_value": Decimal(50)}),
        ("completed_at", None, {"string_value": "2026-05-04T12:30:00Z"}),
        ("delivery", None, {"string_value": "dlv-1"}),
        ("scores.scaled", None, None),
        ("parts.topic.Law.percent", None, None),
    ],
)
def test_a_field_is_filled_from_what_its_path_names(value: str, kind: Any, member: dict[str, Any] | None) -> None:
    wanted = CustomField(id=A, value=value, kind=kind)
    assert fields_of(OUTCOME, [wanted]) == ({A: member} if member else {})


WANTED: Fields = {A: {"numeric_value": Decimal("82.50")}}


@pytest.mark.parametrize(
    ("present", "changed", "paths"),
    [
        (None, True, ["/custom_field_values"]),
        ([], True, ["/custom_field_values/-"]),
        ([{"custom_field_id": B, "numeric_value": 1}], True, ["/custom_field_values/-"]),
        ([{"custom_field_id": A, "numeric_value": 82.5}], False, []),
        (
            [{"custom_field_id": B}, {"custom_field_id": A, "numeric_value": 7}],
            True,
            ["/custom_field_values/1/custom_field_id", "/custom_field_values/1/numeric_value"],
        ),
    ],
    ids=["absent array", "empty array", "another field", "already so", "replaced where it stands"],
)
def test_only_what_differs_is_patched_where_it_stands(present: Any, changed: bool, paths: list[str]) -> None:
    found = difference(WANTED, present)
    assert bool(found) == changed
    assert [one.path for one in (operations(found, present) if found else [])] == paths


@pytest.mark.parametrize(
    ("wrote", "wanted", "expected"),
    [
        ({A: {"numeric_value": 65}}, [A], {A: {"numeric_value": None}}),
        ({A: {"numeric_value": 65}}, [], {}),
        ({B: {"numeric_value": 65}}, [A, B], {B: {"numeric_value": 70}}),
    ],
    ids=["ours, and no value now", "not in the exam map any more", "another value now"],
)
def test_a_field_that_an_earlier_result_filled_is_emptied(wrote: Fields, wanted: list[str], expected: Fields) -> None:
    fields: Fields = {B: {"numeric_value": 70}} if B in wrote else {}
    assert cleared(fields, wrote, wanted) == expected


def test_a_field_is_emptied_where_it_stands_and_only_once() -> None:
    empty: Fields = {A: {"numeric_value": None}}
    held = [{"custom_field_id": B}, {"custom_field_id": A, "numeric_value": 65}]
    told = [(one.op, one.path) for one in operations(difference(empty, held), held)]
    assert told[-1] == ("remove", "/custom_field_values/1/numeric_value")
    assert difference(empty, [{"custom_field_id": A}]) == difference(empty, None) == {}


def test_true_and_one_are_different_values() -> None:
    assert difference({A: {"boolean_value": True}}, [{"custom_field_id": A, "boolean_value": 1}])
