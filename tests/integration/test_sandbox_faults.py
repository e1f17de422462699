"""The stand-in's scripted failures: what a client really sees, and what was really applied."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sandbox.control import Sandbox, start
from tests.integration.sandbox_rhythm import TENANT, TO_PASSED, Rhythm, add, eventually, guard, ids, patch_of


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
    assert [(call["status"], call["fault"]) for call in sandbox.requests()] == [(None, "apply_then_lose")] * 2


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
    assert sandbox.requests()[-1]["duration_ms"] is None, "it is still under way"
    eventually(lambda: status_of(sandbox) == "passed")


@pytest.mark.parametrize(("applied", "status"), [("first", "passed"), ("last", "registered")])
def test_hang_without_end_never_answers(sandbox: Sandbox, rhythm: Rhythm, applied: str, status: str) -> None:
    sandbox.fault("hang", applied=applied)
    with pytest.raises(requests.ReadTimeout):
        rhythm.patch("reg-1", *TO_PASSED, timeout=0.2)
    rhythm.session.close()
    eventually(lambda: sandbox.requests()[-1]["duration_ms"])
    assert status_of(sandbox) == status


def test_what_is_under_way_at_a_reset_does_not_touch_what_comes_after(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("apply_late", delay_ms=30)
    with pytest.raises(requests.ConnectionError):
        rhythm.patch("reg-1", *TO_PASSED)
    sandbox.reset()
    sandbox.seed(TENANT, [{"id": "reg-1"}, {"id": "reg-2"}])
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
    assert ids(rhythm.search({"score": [1]})) == ["reg-1"]
    assert rhythm.call("GET", "/student/student-1").json()["Items"][0]["score"] == 1
    assert rhythm.patch("reg-1", guard(2), add("score", 3)).status_code == 400, "a write sees the truth"


def test_a_stale_read_catches_up(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("stale", times=None, within_ms=200)
    rhythm.patch("reg-1", add("score", 1))
    assert "score" not in rhythm.get("reg-1").json()
    assert eventually(lambda: "score" in rhythm.get("reg-1").json())


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
        ({}, ["get", "get", "patch", "search", "batch", "student_exam", "token", "other"]),
        ({"methods": ["PATCH"]}, ["patch"]),
        ({"kind": "search"}, ["search"]),
        ({"kind": ["search", "token"]}, ["search", "token"]),
        ({"kind": "student_exam"}, ["student_exam"]),
        ({"ids": ["reg-1"]}, ["get", "patch", "search", "batch"]),
        ({"tenant": "other.org"}, ["other"]),
        ({"tenant": TENANT, "methods": ["GET"], "ids": ["reg-2"]}, ["get"]),
    ],
)
def test_a_fault_hits_only_the_calls_it_matches(
    sandbox: Sandbox, rhythm: Rhythm, match: dict[str, Any], hit: list[str]
) -> None:
    sandbox.fault("status", status=555, times=None, **match)
    with Rhythm(sandbox.url, "other.org") as other:
        answers = [
            ("get", rhythm.get("reg-1")),
            ("get", rhythm.get("reg-2")),
            ("patch", rhythm.patch("reg-1", add("score", 1))),
            ("search", rhythm.search({"ids": ["reg-1", "reg-3"]})),
            ("batch", rhythm.batch(patch_of("reg-3"), patch_of("reg-1"))),
            ("student_exam", rhythm.call("GET", "/studentExam/student-1/exam-1")),
            ("token", rhythm.session.post(f"{sandbox.url}/oauth/token", timeout=5)),
            ("other", other.call("GET")),
        ]
    assert [name for name, answer in answers if answer.status_code == 555] == hit
    assert [script["hits"] for script in sandbox.faults()] == [len(hit)]


def test_faults_are_played_in_order_skip_what_they_are_told_and_run_out(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("status", status=501, times=2, skip=1)
    sandbox.fault("status", status=502)
    assert [rhythm.get("reg-1").status_code for _ in range(5)] == [502, 501, 501, 200, 200]
    assert [(script["remaining"], script["hits"]) for script in sandbox.faults()] == [(0, 2), (0, 1)]
    sandbox.clear_faults()
    assert sandbox.faults() == []


def test_a_fault_of_some_probability_is_the_same_for_the_same_seed(sandbox: Sandbox, rhythm: Rhythm) -> None:
    def played(seed: int) -> list[int]:
        sandbox.clear_faults()
        sandbox.fault("status", status=500, times=None, probability=0.5, seed=seed)
        return [rhythm.get("reg-1").status_code for _ in range(40)]

    first = played(1)
    assert 5 < first.count(500) < 35
    assert played(1) == first
    assert played(2) != first


def test_who_may_not_call_meets_no_fault(sandbox: Sandbox) -> None:
    sandbox.fault("status", status=500)
    with Rhythm(sandbox.url, authorization=None) as stranger:
        assert stranger.get("reg-1").status_code == 401
    assert sandbox.faults()[0]["hits"] == 0


@pytest.mark.parametrize(
    "wrong", [{"action": "explode"}, {"action": "status", "kind": "everything"}, {"action": "hang", "secs": 1}]
)
def test_a_wrong_fault_is_refused(sandbox: Sandbox, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="422"):
        sandbox.fault(**wrong)
    assert sandbox.faults() == []
