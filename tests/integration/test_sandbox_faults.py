"""The stand-in's scripted failures: what a client really sees, and what was really applied."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sandbox.control import Sandbox
from tests.integration.sandbox_rhythm import TENANT, TO_PASSED, Rhythm, add, eventually, guard, patch_of, seeded


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    return seeded(running_sandbox)


@pytest.fixture
def rhythm(sandbox: Sandbox) -> Iterator[Rhythm]:
    with Rhythm(sandbox.url) as client:
        yield client


def status_of(sandbox: Sandbox, registration_id: str = "reg-1") -> str:
    return str(sandbox.registration(TENANT, registration_id)["status"])


def test_status_answers_as_told_and_applies_nothing(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("status", status=503, body={"why": "tired"}, headers={"Retry-After": "7"})
    answer = rhythm.patch("reg-1", *TO_PASSED)
    assert (answer.status_code, answer.json(), answer.headers["Retry-After"]) == (503, {"why": "tired"}, "7")
    assert status_of(sandbox) == "registered"
    assert rhythm.patch("reg-1", *TO_PASSED).status_code == 200, "one time is one time"


def test_reset_cuts_the_connection_and_applies_nothing(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("reset")
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        rhythm.patch("reg-1", *TO_PASSED)
    assert status_of(sandbox) == "registered"
    assert rhythm.get("reg-1").status_code == 200, "the next connection is served"


def test_apply_then_lose_applies_and_gives_no_answer(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("apply_then_lose", kind=["patch", "batch"], times=2)
    with pytest.raises(requests.ConnectionError):
        rhythm.patch("reg-1", *TO_PASSED)
    with pytest.raises(requests.ConnectionError):
        rhythm.batch(patch_of("reg-2", *TO_PASSED), patch_of("reg-3", guard(9), *TO_PASSED))
    assert [status_of(sandbox, f"reg-{n}") for n in (1, 2, 3)] == ["passed", "passed", "registered"]
    assert [call["status"] for call in sandbox.requests()] == [None, None]


def test_apply_late_cuts_first_and_applies_afterwards(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("apply_late", delay_ms=150)
    with pytest.raises(requests.ConnectionError):
        rhythm.patch("reg-1", guard(1), *TO_PASSED)
    assert status_of(sandbox) == "registered"
    eventually(lambda: status_of(sandbox) == "passed")
    assert sandbox.history(TENANT, "reg-1")[0]["at"] - sandbox.requests()[0]["ended_at"] >= 0.14


def test_apply_late_is_stopped_by_its_own_guard(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("apply_late", delay_ms=100, ids=["reg-1", "reg-2"], times=2)
    with pytest.raises(requests.ConnectionError):
        rhythm.patch("reg-1", guard(1), *TO_PASSED)
    with pytest.raises(requests.ConnectionError):
        rhythm.patch("reg-2", *TO_PASSED)
    sandbox.edit(TENANT, "reg-1", notes="a registrar was quicker")
    eventually(lambda: status_of(sandbox, "reg-2") == "passed")
    assert status_of(sandbox) == "registered"


def test_hang_answers_late(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("hang", seconds=0.2)
    answer = rhythm.patch("reg-1", *TO_PASSED)
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() >= 0.2


def test_a_hanging_write_is_applied_although_the_client_left(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("hang", seconds=0.3)
    with pytest.raises(requests.ReadTimeout):
        rhythm.patch("reg-1", *TO_PASSED, timeout=0.1)
    assert status_of(sandbox) == "registered"
    assert sandbox.requests()[-1]["ended_at"] is None, "it is still under way"
    eventually(lambda: status_of(sandbox) == "passed")


def test_hang_without_end_never_answers_nor_applies(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("hang")
    with pytest.raises(requests.ReadTimeout):
        rhythm.patch("reg-1", *TO_PASSED, timeout=0.2)
    rhythm.session.close()
    eventually(lambda: sandbox.requests()[-1]["ended_at"])
    assert status_of(sandbox) == "registered"


def test_what_is_under_way_at_a_reset_does_not_touch_what_comes_after(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("apply_late", delay_ms=30)
    with pytest.raises(requests.ConnectionError):
        rhythm.patch("reg-1", *TO_PASSED)
    seeded(sandbox)
    sandbox.fault("apply_late", delay_ms=60)
    with pytest.raises(requests.ConnectionError):
        rhythm.patch("reg-2", *TO_PASSED)
    eventually(lambda: status_of(sandbox, "reg-2") == "passed")
    assert status_of(sandbox) == "registered"


def test_a_stale_read_gives_the_version_before_the_last_change(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("stale", times=None, ids=["reg-1"])
    assert rhythm.get("reg-1").json()["sys_version"] == 1, "never changed, so not older than it is"
    rhythm.patch("reg-1", add("score", 1))
    rhythm.patch("reg-1", add("score", 2))
    rhythm.patch("reg-2", add("score", 2))
    assert rhythm.get("reg-1").json().items() >= {"sys_version": 2, "score": 1}.items()
    assert rhythm.get("reg-1", consistentRead="true").json().items() >= {"sys_version": 3, "score": 2}.items()
    found = rhythm.search({"ids": ["reg-1", "reg-2"]}).json()["Items"]
    assert [(item["id"], item["score"]) for item in found] == [("reg-1", 1), ("reg-2", 2)]
    assert rhythm.student_exam("student-1", "exam-1").json()["Items"][0]["score"] == 1
    assert rhythm.patch("reg-1", guard(2), add("score", 3)).status_code == 400, "a write sees the truth"


def test_latency_delays_only_what_it_matches_and_lets_other_faults_happen(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("latency", ms=150, ids=["reg-1"], times=None)
    sandbox.fault("status", status=500, ids=["reg-1"])
    slow = rhythm.get("reg-1")
    assert (slow.status_code, slow.elapsed.total_seconds() >= 0.15) == (500, True)
    began = time.monotonic()
    assert rhythm.get("reg-2").status_code == 200
    assert time.monotonic() - began < 0.15


def test_item_error_fails_one_item_inside_the_200(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("item_error", status=500, ids=["reg-2"])
    answer = rhythm.batch(patch_of("reg-1", *TO_PASSED), patch_of("reg-2", *TO_PASSED))
    assert (answer.status_code, answer.json()["error_count"]) == (200, 1)
    assert [result["status_code"] for result in answer.json()["results"]] == [200, 500]
    assert [status_of(sandbox, name) for name in ("reg-1", "reg-2")] == ["passed", "registered"]


def test_an_altered_write_is_accepted_and_reads_back_different(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("alter", fields={"score": 80}, ids=["reg-1"], times=2)
    assert rhythm.patch("reg-1", add("score", 80.4)).status_code == 200
    assert rhythm.get("reg-1").json()["score"] == 80
    results = rhythm.batch(patch_of("reg-1", add("score", 80.4)), patch_of("reg-2", add("score", 80.4))).json()[
        "results"
    ]
    assert [result["item"]["score"] for result in results] == [80, 80.4]


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({}, ["get", "get-2", "search", "batch", "student_exam", "token", "other"]),
        ({"kind": "search"}, ["search"]),
        ({"kind": ["search", "token"]}, ["search", "token"]),
        ({"kind": "student_exam"}, ["student_exam"]),
        ({"ids": ["reg-1"]}, ["get", "search", "batch"]),
        ({"tenant": "other.org"}, ["other"]),
        ({"tenant": TENANT, "kind": "get", "ids": ["reg-2"]}, ["get-2"]),
    ],
)
def test_a_fault_hits_only_the_calls_it_matches(
    sandbox: Sandbox, rhythm: Rhythm, match: dict[str, Any], hit: list[str]
) -> None:
    sandbox.fault("status", status=555, times=None, **match)
    with Rhythm(sandbox.url, "other.org") as other:
        answers = {
            "get": rhythm.get("reg-1"),
            "get-2": rhythm.get("reg-2"),
            "search": rhythm.search({"ids": ["reg-1", "reg-3"]}),
            "batch": rhythm.batch(patch_of("reg-3"), patch_of("reg-1")),
            "student_exam": rhythm.student_exam("student-1", "exam-1"),
            "token": rhythm.session.post(f"{sandbox.url}/oauth/token", timeout=5),
            "other": other.get("reg-3"),
        }
    assert [name for name, answer in answers.items() if answer.status_code == 555] == hit


def test_faults_are_played_in_order_skip_what_they_are_told_and_run_out(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("status", status=501, times=2, skip=1)
    sandbox.fault("status", status=502)
    assert [rhythm.get("reg-1").status_code for _ in range(5)] == [502, 501, 501, 200, 200]
    sandbox.fault("status", times=None)
    sandbox.clear_faults()
    assert rhythm.get("reg-1").status_code == 200


def test_a_fault_may_happen_by_chance(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("status", status=500, times=None, probability=0.5)
    assert 5 < [rhythm.get("reg-1").status_code for _ in range(60)].count(500) < 55


def test_who_may_not_call_meets_no_fault(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("status", status=500)
    with Rhythm(sandbox.url, authorization=None) as stranger:
        assert stranger.get("reg-1").status_code == 401
    assert rhythm.get("reg-1").status_code == 500
