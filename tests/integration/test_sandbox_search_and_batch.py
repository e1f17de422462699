"""The stand-in's search, pages and batches: what the document says, and each shape that it leaves open."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.control import Sandbox, start
from tests.integration.sandbox_rhythm import TENANT, TO_PASSED, Rhythm, add, guard, ids, patch_of


@pytest.fixture(scope="module")
def process() -> Iterator[Sandbox]:
    with start() as running:
        yield running


@pytest.fixture
def sandbox(process: Sandbox) -> Sandbox:
    process.reset()
    process.seed(TENANT, [{"id": f"reg-{n}", "student_id": f"student-{n}"} for n in range(1, 6)])
    return process


@pytest.fixture
def rhythm(sandbox: Sandbox) -> Iterator[Rhythm]:
    with Rhythm(sandbox.url) as client:
        yield client


PEOPLE = [
    {"id": "ann", "name": "Ann", "email_address": "Ann@Example.org", "exam_id": "e1", "score": 81, "city": "Oslo"},
    {"id": "bob", "name": "Bob", "status": "passed", "date": "2026-03-01", "job_title": "Cook", "state": "NY"},
    {
        "id": "cyd",
        "name": "Annabel",
        "exam_offering_id": "o9",
        "location": "none",
        "sys_created_at": "2020-01-01T00:00:00Z",
    },
    {
        "id": "dan",
        "testing_facility_id": "f1",
        "training_provider_id": "p1",
        "training_location_id": "l1",
        "name": "Dan",
    },
]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"ids": ["dan", "ann", "nobody", "ann"]}, ["ann", "dan"]),
        ({"ids": []}, []),
        ({"name": "ann"}, ["ann"]),
        ({"email_address": "ann@example.org"}, ["ann"]),
        ({"job_title": "Cook"}, ["bob"]),
        ({"city": "Oslo"}, ["ann"]),
        ({"state": "NY"}, ["bob"]),
        ({"exam_id": ["e1", "e2"]}, ["ann"]),
        ({"exam_offering_id": ["o9"]}, ["cyd"]),
        ({"location": ["none"]}, ["cyd"]),
        ({"testing_facility_id": ["f1"]}, ["dan"]),
        ({"training_provider_id": ["p1"]}, ["dan"]),
        ({"training_location_id": ["l1"]}, ["dan"]),
        ({"score": [81.0]}, ["ann"]),
        ({"status": ["passed", "failed"]}, ["bob"]),
        ({"date": ["2026-02-28T23:00:00Z", "2026-03-01T00:00:00Z"]}, ["bob"]),
        ({"sys_created_at": ["2019-01-01", "2021-01-01"]}, ["cyd"]),
        ({"ids": ["ann", "bob"], "status": ["passed"]}, ["bob"]),
    ],
)
def test_search_finds_by_each_documented_filter(
    rhythm: Rhythm, sandbox: Sandbox, filters: dict[str, Any], found: list[str]
) -> None:
    sandbox.seed(TENANT, PEOPLE)
    answer = rhythm.search(filters, fieldsToReturn="id")
    assert (answer.status_code, answer.json()) == (200, {"Items": [{"id": name} for name in found]})


@pytest.mark.parametrize(
    "body",
    [{"student_id": ["s"]}, {"ids": "ann"}, {"status": "passed"}, {"date": ["2026-01-01"]}, {"date": ["a", "b"]}, []],
)
def test_search_refuses_an_unknown_or_malformed_filter(rhythm: Rhythm, body: Any) -> None:
    assert rhythm.search(body).status_code == 400


@pytest.mark.parametrize(
    ("how", "found"), [("exact", []), ("ignore_case", ["ann"]), ("contains", ["ann", "cyd"])]
)  # fmt: skip
def test_search_compares_texts_as_told(rhythm: Rhythm, sandbox: Sandbox, how: str, found: list[str]) -> None:
    sandbox.seed(TENANT, PEOPLE)
    sandbox.options(search_text=how)
    assert ids(rhythm.search({"name": "ANN"})) == found


def pages(rhythm: Rhythm, method: str, path: str, body: Any = None) -> list[list[str]]:
    """Every page to the end, as ids; the key goes back as the client would send it."""
    found, query = [], {"fields": "id", "fieldsToReturn": "id"}
    while True:
        page = rhythm.call(method, path, body, params=query).json()
        found.append([item["id"] for item in page["Items"]])
        if "LastEvaluatedKey" not in page:
            return found
        key = page["LastEvaluatedKey"]
        query["exclusiveStartKey"] = key if isinstance(key, str) else json.dumps(key)


@pytest.mark.parametrize("cursor", ["string", "object"])
@pytest.mark.parametrize(
    ("method", "path", "body"), [("GET", "/exam/exam-1", None), ("POST", "/search", {}), ("GET", "", None)]
)
def test_pages_lead_to_the_end(
    rhythm: Rhythm, sandbox: Sandbox, cursor: str, method: str, path: str, body: Any
) -> None:
    sandbox.options(page_size=2, cursor=cursor, list_shape="page")
    assert pages(rhythm, method, path, body) == [["reg-1", "reg-2"], ["reg-3", "reg-4"], ["reg-5"]]


def test_a_full_last_page_has_no_key(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(page_size=5)
    assert pages(rhythm, "POST", "/search", {}) == [[f"reg-{n}" for n in range(1, 6)]]


def test_a_sparse_page_may_be_empty_and_not_the_last(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(page_size=2, sparse_pages=True)
    sandbox.edit(TENANT, "reg-4", status="failed")
    assert pages(rhythm, "POST", "/search", {"status": ["failed"]}) == [[], ["reg-4"], []]


def test_a_page_is_not_moved_by_a_deletion(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(page_size=2)
    key = rhythm.search({}).json()["LastEvaluatedKey"]
    rhythm.call("DELETE", "/reg-2")
    assert ids(rhythm.search({}, exclusiveStartKey=key)) == ["reg-3", "reg-4"]


@pytest.mark.parametrize("cursor", ["string", "object"])
@pytest.mark.parametrize("key", ["nonsense", "{}", "[1]", '"a~b"'])
def test_a_start_key_that_is_not_ours_is_400(rhythm: Rhythm, sandbox: Sandbox, cursor: str, key: str) -> None:
    sandbox.options(cursor=cursor)
    assert rhythm.search({}, exclusiveStartKey=key).status_code == 400


def test_a_lookup_without_a_match_may_be_an_empty_list(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(nothing_found="empty")
    nothing = rhythm.call("GET", "/student/nobody")
    assert (nothing.status_code, nothing.json()) == (200, {"Count": 0, "Items": []})


MIXED = [
    patch_of("reg-1", guard(1), *TO_PASSED),
    patch_of("reg-2", guard(9), *TO_PASSED),
    patch_of("nobody", *TO_PASSED),
    {"id": "reg-3", "operation": "delete"},
    {"id": "reg-4", "operation": "patch", "patch_directives": "malformed"},
    {"id": "reg-5", "operation": "create"},
    {"operation": "delete"},
    "nonsense",
]
MIXED_STATUSES = [200, 400, 404, 200, 400, 400, 400, 400]


def test_a_batch_applies_each_operation_by_itself_and_answers_200(rhythm: Rhythm, sandbox: Sandbox) -> None:
    answer = rhythm.batch(*MIXED)
    assert answer.status_code == 200
    assert (answer.json()["success_count"], answer.json()["error_count"]) == (2, 6)
    results = answer.json()["results"]
    assert [result["status_code"] for result in results] == MIXED_STATUSES
    assert [result["success"] for result in results] == [status == 200 for status in MIXED_STATUSES]
    assert [result["id"] for result in results] == ["reg-1", "reg-2", "nobody", "reg-3", "reg-4", "reg-5", None, None]
    assert results[0]["item"] == sandbox.registration(TENANT, "reg-1")
    assert {name: one["sys_version"] for name, one in sandbox.registrations(TENANT).items()} == {
        "reg-1": 2, "reg-2": 1, "reg-4": 1, "reg-5": 1,
    }  # fmt: skip
    assert [letter["registration"] for letter in sandbox.letters()] == ["reg-1"]


def test_a_batch_takes_100_operations_and_refuses_101(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.seed(TENANT, [{"id": f"many-{n}"} for n in range(101)])
    operations = [patch_of(f"many-{n}", add("score", n)) for n in range(101)]
    assert rhythm.batch(*operations).status_code == 400
    assert sandbox.counts()["writes"] == 0
    assert rhythm.batch(*operations[:100]).json()["success_count"] == 100
    assert sandbox.counts()["writes"] == 100
    assert sandbox.registration(TENANT, "many-99")["score"] == 99


@pytest.mark.parametrize("body", [{}, {"operations": {}}, [], None])
def test_a_batch_without_a_list_of_operations_is_400(rhythm: Rhythm, body: Any) -> None:
    assert rhythm.call("POST", "/batch", body).status_code == 400


def test_batch_results_by_index_name_no_registration(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_results="by_index")
    results = rhythm.batch(*MIXED).json()["results"]
    assert [result["status_code"] for result in results] == MIXED_STATUSES
    assert all(result.keys() <= {"success", "status_code", "error"} for result in results)


def test_bare_batch_results_are_the_registrations_themselves(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_results="bare")
    results = rhythm.batch(*MIXED[:4]).json()["results"]
    assert results[0] == sandbox.registration(TENANT, "reg-1")
    assert [result["id"] for result in results] == ["reg-1", "reg-2", "nobody", "reg-3"]
    assert [name for name in ("success", "status_code") if name in results[1]] == []


def test_opaque_batch_results_leave_only_the_counts(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_results="opaque")
    assert rhythm.batch(*MIXED).json() == {"success_count": 2, "error_count": 6, "results": []}


def test_a_shuffled_batch_is_applied_out_of_order_and_still_whole(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_order="shuffled")
    sandbox.seed(TENANT, [{"id": f"many-{n}"} for n in range(20)])
    asked = [f"many-{n}" for n in range(20)]
    results = rhythm.batch(*[patch_of(name, add("score", 1)) for name in asked]).json()["results"]
    assert [result["id"] for result in results] != asked
    assert sorted(result["id"] for result in results) == sorted(asked)


def test_shuffled_results_by_index_keep_the_order_asked(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_order="shuffled", batch_results="by_index")
    results = rhythm.batch(*MIXED).json()["results"]
    assert [result["status_code"] for result in results] == MIXED_STATUSES


def test_an_operation_may_have_to_carry_an_object(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_requires_object=True)
    with_object = patch_of("reg-2", *TO_PASSED) | {"object": {}, "payload": {}}
    results = rhythm.batch(patch_of("reg-1", *TO_PASSED), with_object).json()["results"]
    assert [result["status_code"] for result in results] == [400, 200]


def test_one_invalid_operation_may_refuse_the_whole_batch(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_refuses_whole=True)
    good = patch_of("reg-1", *TO_PASSED)
    assert rhythm.batch(good, patch_of("reg-2", add("status", "done"))).status_code == 400
    assert rhythm.batch(good, MIXED[4]).status_code == 400
    assert sandbox.counts()["writes"] == 0
    own_errors = rhythm.batch(good, MIXED[1], MIXED[2])
    assert (own_errors.status_code, own_errors.json()["success_count"]) == (200, 1), "a guard refuses only its own"
