"""The stand-in's own acts and its process: a test can seed it, script failures, and read what was written and sent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sandbox.control import API_KEY, Sandbox
from tests.integration.sandbox_rhythm import TENANT, TO_PASSED, Rhythm, add, patch_of, seeded


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    return seeded(running_sandbox)


@pytest.fixture
def rhythm(sandbox: Sandbox) -> Iterator[Rhythm]:
    with Rhythm(sandbox.url) as client:
        yield client


def test_every_write_is_a_version_with_its_stamps_and_history(sandbox: Sandbox, rhythm: Rhythm) -> None:
    rhythm.patch("reg-1", add("score", 81))
    rhythm.patch("reg-1", add("score", 81))
    sandbox.edit(TENANT, "reg-1", score=None, notes="seen")
    now = sandbox.registration(TENANT, "reg-1")
    assert (now["sys_version"], now["sys_last_modified_by_id"], "score" in now) == (4, "registrar", False)
    assert [{**entry, "at": 0} for entry in sandbox.history(TENANT, "reg-1")] == [
        {"at": 0, "by": "api", "operation": "patch", "sys_version": 2, "changes": {"score": [None, 81]}},
        {"at": 0, "by": "api", "operation": "patch", "sys_version": 3, "changes": {}},
        {
            "at": 0,
            "by": "registrar",
            "operation": "edit",
            "sys_version": 4,
            "changes": {"notes": [None, "seen"], "score": [81, None]},
        },
    ]
    times = [entry["at"] for entry in sandbox.history(TENANT, "reg-1")]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 5


def test_a_letter_goes_out_for_each_change_to_passed_or_failed(sandbox: Sandbox, rhythm: Rhythm) -> None:
    rhythm.patch("reg-1", *TO_PASSED)
    rhythm.patch("reg-1", *TO_PASSED)
    rhythm.batch(patch_of("reg-1", add("status", "failed")), patch_of("reg-2", add("status", "no show")))
    sandbox.edit(TENANT, "reg-1", status="passed")
    sandbox.seed(TENANT, [{"id": "reg-9", "status": "passed"}])
    letters = [(one["registration"], one["status"], one["sys_version"]) for one in sandbox.letters()]
    assert letters == [("reg-1", "passed", 2), ("reg-1", "failed", 4), ("reg-1", "passed", 5)]
    assert sandbox.record(TENANT, "reg-1")["letters"] == sandbox.letters()
    assert sandbox.record(TENANT, "reg-2")["letters"] == []


def test_a_seed_keeps_what_is_given_and_starts_anew_each_time(sandbox: Sandbox, rhythm: Rhythm) -> None:
    rhythm.patch("reg-1", add("score", 1))
    sandbox.seed(TENANT, [{"id": "reg-1", "student_id": "moved", "exam_id": "exam-1", "sys_version": 7}])
    record = sandbox.record(TENANT, "reg-1")
    assert record["history"] == []
    assert record["registration"].items() >= {"sys_version": 7, "status": "registered"}.items()
    assert rhythm.student_exam("moved", "exam-1").json()["Count"] == 1
    assert rhythm.student_exam("student-1", "exam-1").status_code == 404
    assert sandbox.counts()["writes"] == 1


def test_a_registrar_edits_a_locked_registration(sandbox: Sandbox) -> None:
    sandbox.seed(TENANT, [{"id": "locked", "sys_locked": True}])
    assert sandbox.edit(TENANT, "locked", sys_locked=False)["sys_version"] == 2


def test_every_call_is_logged_and_counted_but_those_of_the_tests(sandbox: Sandbox, rhythm: Rhythm) -> None:
    began_at = time.time()
    rhythm.get("reg-1")
    rhythm.batch(patch_of("reg-1", *TO_PASSED), patch_of("reg-2", *TO_PASSED))
    rhythm.search({"ids": ["reg-3"]}, exclusiveStartKey="place~0")
    rhythm.student_exam("student/1", "exam-1")
    calls = sandbox.requests()
    assert [(call["n"], call["kind"], call["ids"], call["status"]) for call in calls] == [
        (1, "get", ["reg-1"], 200),
        (2, "batch", ["reg-1", "reg-2"], 200),
        (3, "search", ["reg-3"], 200),
        (4, "student_exam", ["student/1", "exam-1"], 404),
    ]
    assert calls[2]["path"] == f"/examRegistrations/{TENANT}/search?exclusiveStartKey=place~0"
    times = [began_at] + [call[name] for call in calls for name in ("at", "ended_at")] + [time.time()]
    assert times == sorted(times)
    assert sandbox.requests(after=3) == calls[3:]
    assert sandbox.counts() == {
        "calls": 4,
        "writes": 2,
        "letters": 2,
        "tokens": 0,
        "by_kind": {"GET get": 1, "POST batch": 1, "POST search": 1, "GET student_exam": 1},
        "by_status": {"200": 3, "404": 1},
    }


def test_a_reset_forgets_everything(sandbox: Sandbox, rhythm: Rhythm) -> None:
    rhythm.patch("reg-1", *TO_PASSED)
    sandbox.options(page_size=1)
    sandbox.fault("reset", times=None)
    sandbox.reset()
    assert (sandbox.registrations(TENANT), sandbox.letters(), sandbox.requests()) == ({}, [], [])
    assert (sandbox.options()["page_size"], sandbox.counts()["writes"]) == (100, 0)
    assert rhythm.get("reg-1").status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [{"page_sise": 2}, {"page_size": 0}, {"rate_limit": {}}, {"values": "any"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_option_is_refused_and_changes_nothing(sandbox: Sandbox, wrong: dict[str, Any]) -> None:
    before = sandbox.options()
    with pytest.raises(ValueError, match=f"422.*{next(iter(wrong))}"):
        sandbox.options(latency_ms=1, **wrong)
    assert sandbox.options() == before


@pytest.mark.parametrize(
    "wrong", [{"action": "explode"}, {"action": "status", "kind": "everything"}, {"action": "hang", "secs": 1}]
)
def test_a_wrong_fault_is_refused(sandbox: Sandbox, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="422"):
        sandbox.fault(**wrong)


@pytest.mark.parametrize(
    ("path", "body"),
    [("registrations", ""), ("record/acme.org/nobody", ""), ("elsewhere", ""), ("options", "{")],
)
def test_what_it_cannot_use_is_422(sandbox: Sandbox, path: str, body: str) -> None:
    assert requests.post(f"{sandbox.url}/_sandbox/{path}", body, timeout=5).status_code == 422


def test_a_browser_can_look_at_the_registrations(sandbox: Sandbox) -> None:
    found = requests.get(f"{sandbox.url}/_sandbox/registrations/{TENANT}", timeout=5).json()
    assert found == sandbox.registrations(TENANT)
    assert list(found) == [f"reg-{n}" for n in range(1, 6)]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_process_says_when_it_is_ready_and_stops_with_exit_0(stop: signal.Signals) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, "-m", "sandbox"], env=environment, **pipes) as process:
        line = process.stdout.readline()
        assert line.startswith("sandbox ready on http://127.0.0.1:")
        with Rhythm(line.split()[-1], TENANT, API_KEY) as rhythm:
            assert rhythm.get("reg-1").status_code == 404
            process.send_signal(stop)
            assert process.wait(timeout=5) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
