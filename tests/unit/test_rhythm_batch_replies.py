"""A batch's reply is read in every form, and believed only where it does not contradict itself."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.rhythm import BatchReply
from worker.rhythm.batch import ItemState, read_results
from worker.rhythm.failures import (
    MissingReference,
    RegistrationGone,
    RhythmRejected,
    RhythmThrottled,
    RhythmUnavailable,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
IDS = ["a", "b"]
A, F, U = ItemState.APPLIED, ItemState.FAILED, ItemState.UNKNOWN


def read(results: Any, success_count: Any = None, error_count: Any = None) -> dict[str, Any]:
    body = {"success_count": success_count, "error_count": error_count, "results": results}
    return read_results(BatchReply.model_validate_json(json.dumps(body)), IDS, NOW)


def states(*reply: Any) -> list[ItemState]:
    return [result.state for result in read(*reply).values()]


def record(id: str, **members: Any) -> dict[str, Any]:
    return {"id": id, "exam_id": "exam-1", "sys_version": 4} | members


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([{"id": "b", "success": True}, {"id": "a", "success": False}], [F, A]),
        ([{"id": "b", "statusCode": 200}, {"id": "a", "statusCode": 400}], [F, A]),
        ([{"id": "b", "status_code": "204"}, {"id": "a", "code": 409}], [F, A]),
        ([{"id": "b", "status": 200}, {"id": "a", "status": "400"}], [F, A]),
        ([{"id": "b", "status": "success"}, {"id": "a", "status": "error"}], [F, A]),
        ([{"id": "b", "object": record("b")}, {"id": "a", "error": {"message": "no"}}], [F, A]),
        ([{"result": record("b")}, {"id": "a", "errors": ["no"]}], [F, A]),
        ([record("b", status="failed"), record("a", status="registered")], [A, A]),
        ([{"success": True}, {"success": False}], [A, F]),
        ([{"statusCode": 200}, {"error": "no"}], [A, F]),
    ],
)
def test_each_form_of_an_entry_is_read(results: Any, expected: list[ItemState]) -> None:
    assert states(results) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (([], 2, 0), [A, A]),
        ((None, 2, 0), [A, A]),
        (([], 0, 2), [F, F]),
        (([], 1, 1), [U, U]),
        (([], 3, 0), [U, U]),
        (([], None, None), [U, U]),
        (([{"id": "a", "message": "?"}, record("b")], 1, 1), [F, A]),
        (([{"id": "a", "message": "?"}, record("b")], 2, 0), [A, A]),
        (([{"id": "a", "message": "?"}, record("b")], None, None), [U, A]),
        (([{"id": "a", "success": False}], 1, 1), [F, A]),
    ],
)
def test_what_entries_do_not_say_the_counts_may(reply: Any, expected: list[ItemState]) -> None:
    assert states(*reply) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (([{"id": "a", "success": True}, {"id": "b", "success": True}], 1, 1), [U, U]),
        (([{"id": "a", "success": True}, {"id": "b", "success": False}], 2, 0), [U, U]),
        (([{"id": "a", "success": True, "status_code": 500}, {"id": "b", "success": True}], None, None), [U, A]),
        (([{"id": "a", "success": True, "error": "no"}, {"id": "b", "success": True}], None, None), [U, A]),
        (([{"id": "a", "success": True}, {"id": "a", "success": False}], None, None), [U, U]),
        (([{"success": True}], None, None), [U, U]),
        (([{"id": "z", "success": True}, {"success": True}], None, None), [U, U]),
        (([{"id": "a", "status": "failed"}, {"id": "b", "success": True}], None, None), [U, A]),
        (("garbage", None, None), [U, U]),
    ],
)
def test_a_reply_that_contradicts_itself_says_nothing(reply: Any, expected: list[ItemState]) -> None:
    assert states(*reply) == expected


def test_the_registration_comes_along_where_the_reply_carries_it() -> None:
    results = read([record("b", score=70.1), {"id": "a", "success": True, "item": record("a", score=1)}])
    assert {id: (result.registration.id, result.registration.sys_version) for id, result in results.items()} == {
        "a": ("a", 4),
        "b": ("b", 4),
    }
    assert str(results["b"].registration.score) == "70.1"


def test_another_ones_registration_does_not_come_along() -> None:
    assert read([{"id": "a", "success": True, "item": record("b")}])["a"].registration is None


@pytest.mark.parametrize(
    ("entry", "error", "status"),
    [
        ({"status_code": 400}, RhythmRejected, 400),
        ({"error": {"statusCode": 422}}, RhythmRejected, 422),
        ({"status_code": 409}, MissingReference, 409),
        ({"status_code": 404}, RegistrationGone, 404),
        ({"status_code": 429}, RhythmThrottled, 429),
        ({"status_code": 500}, RhythmUnavailable, 500),
        ({"error": "no"}, RhythmRejected, None),
        ({"status_code": 403}, RhythmRejected, 403),
        ({"status_code": 401}, RhythmRejected, 401),
    ],
)
def test_an_error_is_what_a_single_patch_would_have_raised_but_never_the_credentials(
    entry: dict[str, Any], error: type[Exception], status: int | None
) -> None:
    result = read([{"id": "a"} | entry])["a"]
    assert result.state is ItemState.FAILED
    assert type(result.error) is error
    assert result.error.status == status
