"""Who may call the stand-in and how fast, and its options: each changes what a client sees."""

import json
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from sandbox.control import CLIENT_ID, CLIENT_SECRET, Sandbox, start
from tests.integration.sandbox_rhythm import TENANT, Rhythm, add, eventually, guard, patch_of

FORM = {
    "grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
    "audience": "https://api.rhythmsoftware.com",
}  # fmt: skip


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


def status_with(sandbox: Sandbox, authorization: str | None, tenant: str = TENANT) -> int:
    with Rhythm(sandbox.url, tenant, authorization) as client:
        return client.call("GET").status_code


def token_from(sandbox: Sandbox, **changes: str) -> requests.Response:
    return requests.post(f"{sandbox.url}/oauth/token", data=FORM | changes, timeout=5)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("sandbox-key", 200),
        ("Bearer sandbox-key", 200),
        (None, 401),
        ("", 401),
        ("Bearer wrong", 401),
        ("Basic x", 401),
    ],
)
def test_a_key_is_taken_raw_or_as_bearer(sandbox: Sandbox, authorization: str | None, status: int) -> None:
    assert status_with(sandbox, authorization) == status


def test_keys_and_tenants_can_be_told(sandbox: Sandbox) -> None:
    sandbox.options(api_keys={"one": "one.org", "all": None}, tenants=["one.org", "two.org"])
    calls = [
        ("one", "one.org"),
        ("one", "two.org"),
        ("all", "two.org"),
        ("all", "three.org"),
        ("sandbox-key", "one.org"),
    ]
    assert [status_with(sandbox, *call) for call in calls] == [200, 403, 200, 403, 401]


def test_a_token_is_issued_counted_and_accepted(sandbox: Sandbox) -> None:
    answer = token_from(sandbox)
    assert answer.status_code == 200
    assert {**answer.json(), "access_token": ""} == {"access_token": "", "expires_in": 86400, "token_type": "Bearer"}
    assert status_with(sandbox, f"Bearer {answer.json()['access_token']}") == 200
    assert sandbox.counts()["tokens"] == 1


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


def test_a_token_is_for_its_clients_tenant(sandbox: Sandbox) -> None:
    sandbox.options(oauth_clients={CLIENT_ID: {"secret": CLIENT_SECRET, "tenant": "one.org"}}, audience="other")
    token = token_from(sandbox, audience="other").json()["access_token"]
    assert [status_with(sandbox, f"Bearer {token}", tenant) for tenant in ("one.org", TENANT)] == [200, 403]


def test_tokens_expire_by_time_and_at_once_when_told(sandbox: Sandbox) -> None:
    lasting = f"Bearer {token_from(sandbox).json()['access_token']}"
    sandbox.options(token_seconds=0.05)
    short = f"Bearer {token_from(sandbox).json()['access_token']}"
    assert eventually(lambda: status_with(sandbox, short) == 401)
    assert status_with(sandbox, lasting) == 200
    sandbox.expire_tokens()
    assert status_with(sandbox, lasting) == 401


def test_a_reset_forgets_tokens(sandbox: Sandbox) -> None:
    token = token_from(sandbox).json()["access_token"]
    sandbox.reset()
    assert status_with(sandbox, f"Bearer {token}") == 401


def test_over_the_rate_limit_the_answer_is_429_and_nothing_is_applied(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.options(rate_limit={"calls_per_second": 0.5, "burst": 2})
    answers = [rhythm.patch("reg-1", add("score", n)) for n in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["Retry-After"] == "2"
    assert sandbox.registration(TENANT, "reg-1")["score"] == 1
    with Rhythm(sandbox.url, "other.org") as other:
        assert other.call("GET").status_code == 200, "each tenant has its own limit"


def test_a_rate_limit_lets_go_after_retry_after(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.options(rate_limit={"calls_per_second": 10})
    rhythm.get("reg-1")
    assert rhythm.get("reg-1").status_code == 429
    assert eventually(lambda: rhythm.get("reg-1").status_code == 200, seconds=1)


def test_retry_after_may_be_a_date_or_absent(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.options(rate_limit={"calls_per_second": 0.1, "retry_after": "date"})
    rhythm.get("reg-1")
    until = parsedate_to_datetime(rhythm.get("reg-1").headers["Retry-After"]).timestamp()
    assert 9 < until - time.time() < 12
    sandbox.options(rate_limit={"calls_per_second": 0.1, "retry_after": "none"})
    assert rhythm.get("reg-1").status_code == 200, "a new limit starts full"
    refused = rhythm.get("reg-1")
    assert (refused.status_code, "Retry-After" in refused.headers) == (429, False)


def test_latency_is_added_to_every_answer(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.options(latency_ms=120)
    assert rhythm.get("reg-1").elapsed.total_seconds() >= 0.12


STRINGS = [add("score", "81.5"), add("retest", "true"), add("exam_date", "2026-01-01"), guard("1")]


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
        ("strict_string", [guard(1)], 400),
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
    rhythm.patch(
        "reg-1", add("custom_field_values/1/numeric_value", "7"), add("custom_field_values/0/string_value", "2")
    )
    assert rhythm.get("reg-1").json()["custom_field_values"] == [
        {"custom_field_id": "a__c", "string_value": "2"},
        {"custom_field_id": "b__c", "numeric_value": 7},
    ]


@pytest.mark.parametrize("status", [400, 409, 412])
def test_the_status_of_a_failed_test_can_be_told(sandbox: Sandbox, rhythm: Rhythm, status: int) -> None:
    sandbox.options(failed_test_status=status)
    assert rhythm.patch("reg-1", guard(9), add("score", 1)).status_code == status
    assert rhythm.batch(patch_of("reg-1", guard(9))).json()["results"][0]["status_code"] == status


def test_the_status_of_a_locked_registration_can_be_told(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.options(locked_status=423)
    sandbox.edit(TENANT, "reg-1", sys_locked=True)
    assert rhythm.patch("reg-1", add("score", 1)).status_code == 423


@pytest.mark.parametrize("wrong", [{"page_sise": 2}, {"page_size": 0}, {"rate_limit": {}}, {"values": "any"}])
def test_a_wrong_option_is_refused_and_changes_nothing(sandbox: Sandbox, wrong: dict[str, Any]) -> None:
    before = sandbox.options()
    with pytest.raises(ValueError, match=f"422.*{next(iter(wrong))}"):
        sandbox.options(latency_ms=1, **wrong)
    assert sandbox.options() == before
