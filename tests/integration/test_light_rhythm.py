"""The benchmark's light stand-in answers as the full one does: the same calls, in turns, over real HTTP."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from bench import light
from sandbox.control import API_KEY, Sandbox, start
from tests.events import registration

ORG = "acme.org"
PASSED: list[dict[str, Any]] = [
    {"op": "add", "path": "/status", "value": "passed"},
    {"op": "add", "path": "/score", "value": 82.5},
    {"op": "add", "path": "/exam_date", "value": "2026-05-04T12:30:00Z"},
]


def guarded(version: int, *directives: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"op": "test", "path": "/sys_version", "value": version}, *directives]


def item(name: str, directives: Any) -> dict[str, Any]:
    return {"id": name, "operation": "patch", "patch_directives": directives}


#: Method, path below the tenant, body.
CALLS: list[tuple[str, str, Any]] = [
    ("GET", "reg-0", None),
    ("GET", "reg-0?consistentRead=true", None),
    ("GET", "nobody", None),
    ("POST", "search", {"ids": ["reg-1", "nobody", "reg-0"]}),
    ("POST", "search", {"exam_id": ["exam-1"], "status": ["registered"]}),
    ("POST", "search?exclusiveStartKey=place~100", {"exam_id": ["exam-1"]}),
    ("POST", "search", {"email_address": "STU-3@example.org"}),
    ("POST", "search", {"unknown": 1}),
    ("GET", "studentExam/stu-3/exam-1", None),
    ("GET", "studentExam/stu-none/exam-1", None),
    ("PATCH", "reg-0", guarded(1, *PASSED)),
    ("PATCH", "reg-0", guarded(1, *PASSED)),  # the guard fails
    ("PATCH", "reg-0", guarded(2, *PASSED)),  # says it already: a version more
    ("PATCH", "reg-0", [{"op": "replace", "path": "/score", "value": 3}]),
    ("PATCH", "reg-0", [{"op": "replace", "path": "/notes", "value": "x"}]),  # not there
    ("PATCH", "reg-0", [{"op": "remove", "path": "/score"}]),
    ("PATCH", "reg-0", [{"op": "add", "path": "/score", "value": "82"}]),
    ("PATCH", "reg-0", [{"op": "add", "path": "/score", "value": True}]),
    ("PATCH", "reg-0", [{"op": "add", "path": "/status", "value": "unheard of"}]),
    ("PATCH", "reg-0", [{"op": "add", "path": "/sys_version", "value": 7}]),
    ("PATCH", "reg-0", [{"op": "add", "path": "/custom_field_values", "value": [{"id": "f", "value": 1}]}]),
    ("PATCH", "reg-0", {"op": "add"}),
    ("PATCH", "nobody", PASSED),
    ("POST", "batch", {"operations": [item(f"reg-{n}", guarded(1, *PASSED)) for n in range(1, 90)]}),
    ("POST", "batch", {"operations": [item("reg-1", guarded(1, *PASSED)), item("none", PASSED), {"id": 3}, None]}),
    ("POST", "batch", {"operations": [item(f"reg-{n}", PASSED) for n in range(101)]}),
    ("POST", "batch", {"operations": "all"}),
    ("DELETE", "reg-5", None),
    ("GET", "reg-5", None),
    ("PUT", "reg-5", None),
    ("POST", "elsewhere", {}),
    ("PATCH", "reg-7", [{"op": "add", "path": ["score"], "value": 1}]),
]


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Sandbox, Sandbox]]:
    with start() as full, light.start() as (other, _):
        yield full, other


@pytest.fixture
def seeded(both: tuple[Sandbox, Sandbox]) -> tuple[Sandbox, Sandbox]:
    given = [registration(f"reg-{n}", student_id=f"stu-{n}", email_address=f"stu-{n}@example.org") for n in range(150)]
    for one in both:
        one.reset()
        one.seed(ORG, given)
    return both


def asked(
    rhythm: Sandbox, method: str, path: str, body: Any, key: str = API_KEY
) -> tuple[int, str | None, str | None, Any]:
    answer = requests.request(
        method,
        f"{rhythm.url}/examRegistrations/{ORG}/{path}",
        data=None if body is None else json.dumps(body),
        headers={"Authorization": f"Bearer {key}"},
        timeout=10,
    )
    headers = answer.headers
    return answer.status_code, headers.get("content-type"), headers.get("retry-after"), timeless(answer.json())


def timeless(told: Any) -> Any:
    """Without the times, which differ by milliseconds."""
    if isinstance(told, dict):
        times = ("sys_last_modified_at", "at", "ended_at")
        return {name: timeless(value) for name, value in told.items() if name not in times}
    return [timeless(one) for one in told] if isinstance(told, list) else told


def test_the_same_answers_to_the_same_calls_and_the_same_world_after_them(seeded: tuple[Sandbox, Sandbox]) -> None:
    full, other = seeded
    for call in CALLS:
        assert asked(full, *call) == asked(other, *call), call
    assert full.counts() == other.counts()
    assert timeless(full.requests()) == timeless(other.requests())
    assert timeless(full.registrations(ORG)) == timeless(other.registrations(ORG))
    for name in ("reg-0", "reg-1"):
        assert timeless(full.record(ORG, name)) == timeless(other.record(ORG, name))
    assert len(other.history(ORG, "reg-0")) == 5, "the calls do write"


def test_the_same_refusals_of_keys_and_of_too_many_calls(seeded: tuple[Sandbox, Sandbox]) -> None:
    full, other = seeded
    for one in seeded:
        one.options(rate_limit={"calls_per_second": 0.01, "burst": 1})
    read = ("GET", "reg-0", None)
    assert asked(full, *read, "wrong") == asked(other, *read, "wrong")
    first, second = ([asked(one, *read) for _ in range(2)] for one in seeded)
    assert [status for status, *_ in second] == [200, 429]
    assert first == second


def test_it_takes_as_long_as_it_is_told_and_refuses_faults(both: tuple[Sandbox, Sandbox]) -> None:
    _, other = both
    other.reset()
    other.options(latency_ms=30)
    asked(other, "GET", "reg-0", None)
    (call,) = other.requests()
    assert call["ended_at"] - call["at"] >= 0.03
    with pytest.raises(ValueError, match="plays no faults"):
        other.fault("status", status=500)
