"""The stand-in's endpoints: who may call, how fast, and what each answers under every option."""

import json
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from sandbox.control import Sandbox
from tests.integration.sandbox_rhythm import TENANT, TO_PASSED, Rhythm, add, eventually, guard, ids, patch_of, seeded

FORM = {
    "grant_type": "client_credentials",
    "client_id": "sandbox-client",
    "client_secret": "sandbox-secret",
    "audience": "https://api.rhythmsoftware.com",
}


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    return seeded(running_sandbox)


@pytest.fixture
def rhythm(sandbox: Sandbox) -> Iterator[Rhythm]:
    with Rhythm(sandbox.url) as client:
        yield client


# Who may call, and how fast


def status_with(sandbox: Sandbox, authorization: str | None, tenant: str = TENANT) -> int:
    with Rhythm(sandbox.url, tenant, authorization) as client:
        return client.search({}).status_code


def token_from(sandbox: Sandbox, **changes: str) -> requests.Response:
    return requests.post(f"{sandbox.url}/oauth/token", data=FORM | changes, timeout=5)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [("sandbox-key", 200), ("Bearer sandbox-key", 200), (None, 401), ("Bearer wrong", 401), ("Basic x", 401)],
)
def test_a_key_is_taken_raw_or_as_bearer(sandbox: Sandbox, authorization: str | None, status: int) -> None:
    assert status_with(sandbox, authorization) == status


def test_keys_and_their_tenants_can_be_told(sandbox: Sandbox) -> None:
    sandbox.options(api_keys={"one": "one.org", "all": None})
    calls = [("one", "one.org"), ("one", "two.org"), ("all", "two.org"), ("sandbox-key", "one.org")]
    assert [status_with(sandbox, *call) for call in calls] == [200, 403, 200, 401]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"audience": "https://elsewhere"}, 401),
        ({"client_secret": "wrong"}, 401),
        ({"client_id": "nobody"}, 401),
        ({"grant_type": "password"}, 400),
    ],
)
def test_a_token_is_refused_with_a_wrong_form(sandbox: Sandbox, changes: dict[str, str], status: int) -> None:
    assert token_from(sandbox, **changes).status_code == status
    assert sandbox.counts()["tokens"] == 0


def test_tokens_expire_by_time_and_at_once_when_told(sandbox: Sandbox) -> None:
    answer = token_from(sandbox)
    assert {**answer.json(), "access_token": ""} == {"access_token": "", "expires_in": 86400, "token_type": "Bearer"}
    lasting = f"Bearer {answer.json()['access_token']}"
    sandbox.options(token_seconds=0.05)
    short = f"Bearer {token_from(sandbox).json()['access_token']}"
    assert eventually(lambda: status_with(sandbox, short) == 401)
    assert status_with(sandbox, lasting) == 200
    sandbox.expire_tokens()
    assert status_with(sandbox, lasting) == 401
    assert sandbox.counts()["tokens"] == 2


def test_over_the_rate_limit_the_answer_is_429_and_nothing_is_applied(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.options(rate_limit={"calls_per_second": 0.5, "burst": 2})
    answers = [rhythm.patch("reg-1", add("score", n)) for n in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["Retry-After"] == sandbox.requests()[2]["retry_after"] == "2"
    assert sandbox.registration(TENANT, "reg-1")["score"] == 1
    assert status_with(sandbox, "sandbox-key", "other.org") == 200, "each tenant has its own limit"
    sandbox.options(rate_limit={"calls_per_second": 10})
    assert [rhythm.get("reg-1").status_code for _ in range(2)] == [200, 429], "a new limit starts full"
    assert eventually(lambda: rhythm.get("reg-1").status_code == 200, seconds=1)


def test_retry_after_may_be_a_date_or_absent(sandbox: Sandbox, rhythm: Rhythm) -> None:
    answers = {}
    for form in ("date", "none"):
        sandbox.options(rate_limit={"calls_per_second": 0.1, "retry_after": form})
        rhythm.get("reg-1")
        answers[form] = rhythm.get("reg-1").headers.get("Retry-After")
    assert 9 < parsedate_to_datetime(answers["date"]).timestamp() - time.time() < 12
    assert answers["none"] is None


def test_latency_is_added_to_every_answer(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.options(latency_ms=120)
    assert rhythm.get("reg-1").elapsed.total_seconds() >= 0.12


# Single registrations


def test_get_gives_the_registration(rhythm: Rhythm, sandbox: Sandbox) -> None:
    assert rhythm.get("reg-1").json() == sandbox.registration(TENANT, "reg-1")
    assert rhythm.get("nobody").status_code == 404


@pytest.mark.parametrize("spelled", ["a%7Cb%3Ac-d_e", "a|b:c-d_e"])
def test_an_id_may_hold_every_sign_the_document_allows(rhythm: Rhythm, sandbox: Sandbox, spelled: str) -> None:
    sandbox.seed(TENANT, [{"id": "a|b:c-d_e"}])
    assert rhythm.get(spelled).json()["id"] == "a|b:c-d_e"
    assert sandbox.record(TENANT, "a|b:c-d_e")["history"] == []


def test_patch_applies_rfc_6902_and_gives_the_whole_registration(rhythm: Rhythm) -> None:
    directives = [
        guard(1),
        add("score", 81.5),
        add("status", "passed"),
        add("custom_field_values", []),
        add("custom_field_values/-", {"custom_field_id": "a__c", "string_value": "x"}),
        {"op": "copy", "from": "/student_id", "path": "/notes"},
        {"op": "replace", "path": "/notes", "value": "n"},
        {"op": "move", "from": "/notes", "path": "/job_title"},
        {"op": "remove", "path": "/job_title"},
    ]
    patched = rhythm.patch("reg-1", *directives)
    assert patched.status_code == 200
    assert patched.json().items() >= {"score": 81.5, "status": "passed", "sys_version": 2}.items()
    assert patched.json()["custom_field_values"] == [{"custom_field_id": "a__c", "string_value": "x"}]
    assert patched.json().keys().isdisjoint({"notes", "job_title"})
    assert rhythm.get("reg-1").json() == patched.json()


@pytest.mark.parametrize(
    "directives",
    [
        [guard(2)],
        [add("score", 1), {"op": "test", "path": "/nothing", "value": 1}],
        [{"op": "replace", "path": "/score", "value": 1}],
        [{"op": "remove", "path": "/score"}],
        [{"op": "add", "path": "/score"}],
        [{"op": "upsert", "path": "/score", "value": 1}],
        [{"op": ["add"], "path": "/score", "value": 1}],
        [{"op": "add", "path": "score", "value": 1}],
        [{"op": "add", "value": 1}],
        [{"op": "move", "from": 1, "path": "/score"}],
        [add("status/deep", 1)],
        [add("custom_field_values/9", {})],
        [{"op": "add", "path": "", "value": 1}],
        [{"op": "add", "path": "", "value": {"id": "reg-1"}}],
        [add("status", "done")],
        [add("status", None)],
        [add("status", ["passed"])],
        [add("score", "81")],
        [add("score", True)],
        [add("score", None)],
        [add("exam_date", 20260101)],
        [add("custom_field_values", {"custom_field_id": "a__c"})],
        [add("id", "other")],
        [add("sys_version", 7)],
        ["add"],
    ],
)
def test_patch_refuses_what_is_not_valid_and_applies_nothing(
    rhythm: Rhythm, sandbox: Sandbox, directives: list[Any]
) -> None:
    before = sandbox.registration(TENANT, "reg-1")
    assert rhythm.patch("reg-1", add("custom_field_values", []), *directives).status_code == 400
    assert sandbox.record(TENANT, "reg-1") == {"registration": before, "history": [], "letters": []}


@pytest.mark.parametrize("body", [b"", b"{}", b"[NaN]", b"\xff", b"[" * 20_000, b"3"])
def test_patch_refuses_a_body_that_is_not_an_array_of_directives(rhythm: Rhythm, body: bytes) -> None:
    assert rhythm.call("PATCH", "/reg-1", data=body).status_code == 400


def test_a_refused_patch_leaves_nested_values_alone(rhythm: Rhythm, sandbox: Sandbox) -> None:
    before = [{"custom_field_id": "a__c", "string_value": "old"}]
    sandbox.seed(TENANT, [{"id": "nested", "custom_field_values": before}])
    deep = {"op": "replace", "path": "/custom_field_values/0/string_value", "value": "new"}
    assert rhythm.patch("nested", deep, add("status", "done")).status_code == 400
    assert rhythm.get("nested").json()["custom_field_values"] == before
    assert rhythm.patch("nested", deep).json()["custom_field_values"][0]["string_value"] == "new"
    assert sandbox.history(TENANT, "nested")[0]["changes"]["custom_field_values"][0] == before


STRINGS = [add("score", "81.5"), add("custom_field_values", "[]"), add("exam_date", "2026-01-01"), guard("1")]


@pytest.mark.parametrize(
    ("values", "directives", "status"),
    [
        ("native", STRINGS[:1], 400),
        ("native", STRINGS[3:], 400),
        ("native", [add("score", 81.5), guard(1)], 200),
        ("string", STRINGS, 200),
        ("string", [add("score", 81.5), guard(1)], 200),
        ("string", [add("score", "many")], 400),
        ("strict_string", STRINGS, 200),
        ("strict_string", [add("score", 81.5)], 400),
        ("strict_string", [guard("2")], 400),
    ],
)
def test_values_of_a_patch_may_be_strings(
    sandbox: Sandbox, rhythm: Rhythm, values: str, directives: list[Any], status: int
) -> None:
    sandbox.options(values=values)
    assert rhythm.patch("reg-1", *directives).status_code == status
    assert rhythm.get("reg-1").json().get("score") == (81.5 if status == 200 else None)


def test_string_values_of_custom_fields_are_read_as_json(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.options(values="strict_string")
    fields = [{"custom_field_id": "a__c", "string_value": "1"}]
    rhythm.patch("reg-1", add("custom_field_values", json.dumps(fields)))
    rhythm.patch("reg-1", add("custom_field_values/-", '{"custom_field_id": "b__c"}'))
    last = [add("custom_field_values/1/numeric_value", "7"), add("custom_field_values/0/string_value", "2")]
    assert rhythm.patch("reg-1", *last).json()["custom_field_values"] == [
        {"custom_field_id": "a__c", "string_value": "2"},
        {"custom_field_id": "b__c", "numeric_value": 7},
    ]


@pytest.mark.parametrize("status", [400, 409, 412])
def test_the_status_of_a_failed_test_can_be_told(sandbox: Sandbox, rhythm: Rhythm, status: int) -> None:
    sandbox.options(failed_test_status=status)
    assert rhythm.patch("reg-1", guard(9), add("score", 1)).status_code == status
    assert rhythm.batch(patch_of("reg-1", guard(9))).json()["results"][0]["status_code"] == status


def test_a_reference_to_an_unknown_exam_is_409_once_the_known_ones_are_told(rhythm: Rhythm, sandbox: Sandbox) -> None:
    assert rhythm.patch("reg-1", add("exam_id", "exam-8")).status_code == 200
    sandbox.options(known_exam_ids=["exam-1"])
    assert rhythm.patch("reg-1", add("exam_id", "exam-9")).status_code == 409
    assert rhythm.patch("reg-1", add("score", 1)).status_code == 200, "an untouched reference is not looked at"
    assert rhythm.patch("reg-1", add("exam_id", "exam-1")).status_code == 200


def test_delete_gives_the_id_and_removes_the_registration(rhythm: Rhythm, sandbox: Sandbox) -> None:
    deleted = rhythm.call("DELETE", "/reg-1")
    assert (deleted.status_code, deleted.json()) == (200, "reg-1")
    for method in ("GET", "PATCH", "DELETE"):
        assert rhythm.call(method, "/reg-1", []).status_code == 404
    assert rhythm.student_exam("student-1", "exam-1").status_code == 404
    assert "reg-1" not in sandbox.registrations(TENANT)


def test_a_locked_registration_is_not_written_and_can_be_read(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.seed(TENANT, [{"id": "locked", "sys_locked": True}])
    assert rhythm.get("locked").status_code == 200
    assert rhythm.patch("locked", add("score", 1)).status_code == 403
    assert rhythm.call("DELETE", "/locked").status_code == 403
    assert rhythm.batch(patch_of("locked", add("score", 1))).json()["results"][0]["status_code"] == 403
    assert sandbox.history(TENANT, "locked") == []


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/x/y/z"), ("POST", "/reg-1"), ("PATCH", ""), ("GET", "/studentExam/x")]
)
def test_an_unknown_path_is_404(rhythm: Rhythm, method: str, path: str) -> None:
    assert rhythm.call(method, path).status_code == 404


# Look-up, search, pages


def test_a_lookup_gives_those_that_match_and_follows_a_patch(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.seed(TENANT, [{"id": "other-exam", "student_id": "student-1", "exam_id": "exam-2"}])
    found = rhythm.student_exam("student-1", "exam-1").json()
    assert found == {"Count": 1, "Items": [sandbox.registration(TENANT, "reg-1")]}
    rhythm.patch("reg-1", add("student_id", "student-2"))
    assert rhythm.student_exam("student-1", "exam-1").status_code == 404
    assert ids(rhythm.student_exam("student-2", "exam-1")) == ["reg-2", "reg-1"]
    sandbox.options(nothing_found="empty")
    assert rhythm.student_exam("student-1", "exam-1").json() == {"Count": 0, "Items": []}


PEOPLE = [
    {"id": "ann", "email_address": "Ann@Example.org", "exam_id": "e1"},
    {"id": "bob", "email_address": "bob@example.org", "exam_id": "e2", "status": "passed"},
    {"id": "cyd", "email_address": "mary.ann@example.org", "exam_id": "e2"},
]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"ids": ["cyd", "ann", "nobody", "ann"]}, ["cyd", "ann"]),
        ({"ids": []}, []),
        ({"email_address": "ann@example.org"}, ["ann"]),
        ({"exam_id": ["e1", "e2"]}, ["ann", "bob", "cyd"]),
        ({"status": ["passed", "failed"]}, ["bob"]),
        ({"ids": ["ann", "bob"], "exam_id": ["e2"]}, ["bob"]),
    ],
)
def test_search_finds_by_each_filter(
    rhythm: Rhythm, sandbox: Sandbox, filters: dict[str, Any], found: list[str]
) -> None:
    sandbox.seed(TENANT, PEOPLE)
    assert ids(rhythm.search(filters)) == found
    assert rhythm.search(filters).json().keys() == {"Items"}


@pytest.mark.parametrize(
    "body", [{"student_id": ["s"]}, {"ids": "ann"}, {"status": "passed"}, {"name": ["a"]}, [], None]
)
def test_search_refuses_an_unknown_or_malformed_filter(rhythm: Rhythm, body: Any) -> None:
    assert rhythm.search(body).status_code == 400


def test_search_may_find_texts_that_contain_what_is_wanted(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.seed(TENANT, PEOPLE)
    sandbox.options(search_text="contains")
    assert ids(rhythm.search({"email_address": "ANN@example.org"})) == ["ann", "cyd"]


def pages(rhythm: Rhythm, method: str, path: str, body: Any = None) -> list[list[str]]:
    """Every page to the end, as ids; the key goes back as the client would send it."""
    found, query = [], {}
    while True:
        page = rhythm.call(method, path, body, params=query).json()
        found.append([item["id"] for item in page["Items"]])
        if "LastEvaluatedKey" not in page:
            return found
        key = page["LastEvaluatedKey"]
        query["exclusiveStartKey"] = key if isinstance(key, str) else json.dumps(key)


@pytest.mark.parametrize("cursor", ["string", "object"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/studentExam/s/e", None),
        ("POST", "/search", {"exam_id": ["e"]}),
        ("POST", "/search", {"ids": list("abcde")}),
    ],
)
def test_pages_lead_to_the_end(
    rhythm: Rhythm, sandbox: Sandbox, cursor: str, method: str, path: str, body: Any
) -> None:
    sandbox.options(page_size=2, cursor=cursor)
    sandbox.seed(TENANT, [{"id": name, "student_id": "s", "exam_id": "e"} for name in "abcde"])
    assert pages(rhythm, method, path, body) == [["a", "b"], ["c", "d"], ["e"]]


def test_a_full_last_page_has_no_key(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(page_size=5)
    assert pages(rhythm, "POST", "/search", {}) == [[f"reg-{n}" for n in range(1, 6)]]


def test_a_sparse_page_may_be_empty_and_not_the_last(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(page_size=2, sparse_pages=True)
    sandbox.edit(TENANT, "reg-4", status="failed")
    assert pages(rhythm, "POST", "/search", {"status": ["failed"]}) == [[], ["reg-4"], []]


@pytest.mark.parametrize("cursor", ["string", "object"])
@pytest.mark.parametrize("key", ["nonsense", "{}", "[1]", '"a~b"'])
def test_a_start_key_that_is_not_ours_is_400(rhythm: Rhythm, sandbox: Sandbox, cursor: str, key: str) -> None:
    sandbox.options(cursor=cursor)
    assert rhythm.search({}, exclusiveStartKey=key).status_code == 400


# Batches


MIXED = [
    patch_of("reg-1", guard(1), *TO_PASSED),
    patch_of("reg-2", guard(9), *TO_PASSED),
    patch_of("nobody", *TO_PASSED),
    {"id": "reg-4", "operation": "patch", "patch_directives": "malformed"},
    {"id": "reg-5", "operation": "create"},
    {"operation": "patch"},
    "nonsense",
]
MIXED_STATUSES = [200, 400, 404, 400, 400, 400, 400]


def test_a_batch_applies_each_operation_by_itself_and_answers_200(rhythm: Rhythm, sandbox: Sandbox) -> None:
    answer = rhythm.batch(*MIXED)
    assert answer.status_code == 200
    assert (answer.json()["success_count"], answer.json()["error_count"]) == (1, 6)
    results = answer.json()["results"]
    assert [result["status_code"] for result in results] == MIXED_STATUSES
    assert [result["success"] for result in results] == [status == 200 for status in MIXED_STATUSES]
    assert [result["id"] for result in results] == ["reg-1", "reg-2", "nobody", "reg-4", "reg-5", None, None]
    assert results[0]["item"] == sandbox.registration(TENANT, "reg-1")
    assert [one["sys_version"] for one in sandbox.registrations(TENANT).values()] == [2, 1, 1, 1, 1]
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


def test_batch_results_by_index_name_no_registration_and_keep_the_order_asked(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_results="by_index", batch_order="shuffled")
    results = rhythm.batch(*MIXED).json()["results"]
    assert [result["status_code"] for result in results] == MIXED_STATUSES
    assert all(result.keys() <= {"success", "status_code", "error"} for result in results)


def test_bare_batch_results_are_the_registrations_themselves(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_results="bare")
    results = rhythm.batch(*MIXED[:3]).json()["results"]
    assert results[0] == sandbox.registration(TENANT, "reg-1")
    assert [result["id"] for result in results] == ["reg-1", "reg-2", "nobody"]
    assert results[1].keys().isdisjoint({"success", "status_code"})


def test_opaque_batch_results_leave_only_the_counts(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_results="opaque")
    assert rhythm.batch(*MIXED).json() == {"success_count": 1, "error_count": 6, "results": []}


def test_a_shuffled_batch_is_applied_out_of_order_and_still_whole(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_order="shuffled")
    asked = [f"many-{n}" for n in range(50)]
    sandbox.seed(TENANT, [{"id": name} for name in asked])
    results = rhythm.batch(*[patch_of(name, add("score", 1)) for name in asked]).json()["results"]
    assert [result["id"] for result in results] != asked
    assert sorted(result["id"] for result in results) == sorted(asked)


def test_an_operation_may_have_to_carry_an_object(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_requires_object=True)
    with_object = patch_of("reg-2", *TO_PASSED) | {"object": {}}
    results = rhythm.batch(patch_of("reg-1", *TO_PASSED), with_object).json()["results"]
    assert [result["status_code"] for result in results] == [400, 200]


def test_one_invalid_operation_may_refuse_the_whole_batch(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.options(batch_refuses_whole=True)
    good = patch_of("reg-1", *TO_PASSED)
    assert rhythm.batch(good, patch_of("reg-2", add("status", "done"))).status_code == 400
    assert rhythm.batch(good, MIXED[3]).status_code == 400
    assert sandbox.counts()["writes"] == 0
    own_errors = rhythm.batch(good, MIXED[1], MIXED[2])
    assert (own_errors.status_code, own_errors.json()["success_count"]) == (200, 1), "a guard refuses only its own"
