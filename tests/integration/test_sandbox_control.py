"""The stand-in's control face and process: what is written, sent and logged can be read back and proven."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from sandbox.control import Sandbox, start
from tests.integration.sandbox_rhythm import COMPLETE, TENANT, TO_PASSED, Rhythm, add, patch_of


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
            "at": 0, "by": "registrar", "operation": "edit", "sys_version": 4,
            "changes": {"notes": [None, "seen"], "score": [81, None]},
        },
    ]  # fmt: skip
    times = [entry["at"] for entry in sandbox.history(TENANT, "reg-1")]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 5


def test_a_letter_goes_out_for_each_change_to_passed_or_failed(sandbox: Sandbox, rhythm: Rhythm) -> None:
    rhythm.patch("reg-1", *TO_PASSED)
    rhythm.patch("reg-1", *TO_PASSED)
    rhythm.batch(patch_of("reg-1", add("status", "failed")), patch_of("reg-2", add("status", "no show")))
    sandbox.edit(TENANT, "reg-1", status="passed")
    sandbox.seed(TENANT, [{"id": "reg-9", "status": "passed"}])
    rhythm.call("POST", "", COMPLETE | {"status": "passed"})
    letters = [(one["registration"], one["status"], one["sys_version"]) for one in sandbox.letters()]
    assert letters == [("reg-1", "passed", 2), ("reg-1", "failed", 4), ("reg-1", "passed", 5)]
    assert sandbox.record(TENANT, "reg-1")["letters"] == sandbox.letters()


def test_a_seed_keeps_what_is_given_and_fills_in_what_is_required(sandbox: Sandbox) -> None:
    sandbox.seed("other.org", [{"id": "x", "sys_version": 7, "score": 5}, {"exam_id": "e"}])
    seeded = sandbox.registrations("other.org")
    assert seeded["x"].items() >= {"sys_version": 7, "score": 5, "status": "registered"}.items()
    assert all(one.keys() >= {*COMPLETE, "sys_created_at", "sys_last_modified_by_id"} for one in seeded.values())
    assert sandbox.counts()["writes"] == 0


def test_a_registration_seeded_again_starts_anew(sandbox: Sandbox, rhythm: Rhythm) -> None:
    rhythm.patch("reg-1", add("score", 1))
    sandbox.seed(TENANT, [{"id": "reg-1", "student_id": "moved"}])
    assert sandbox.record(TENANT, "reg-1")["history"] == []
    assert rhythm.call("GET", "/student/moved").json()["Count"] == 1
    assert rhythm.call("GET", "/student/student-1").status_code == 404


def test_a_registrar_edits_a_locked_registration(sandbox: Sandbox) -> None:
    sandbox.seed(TENANT, [{"id": "locked", "sys_locked": True}])
    assert sandbox.edit(TENANT, "locked", sys_locked=False)["sys_version"] == 2


def test_a_deleted_registration_cannot_be_edited(sandbox: Sandbox, rhythm: Rhythm) -> None:
    rhythm.call("DELETE", "/reg-1")
    with pytest.raises(ValueError, match="404"):
        sandbox.edit(TENANT, "reg-1", score=1)


@pytest.mark.parametrize("path", ["registrations/acme.org/nobody", "elsewhere"])
def test_the_control_face_says_404_for_what_is_not_there(sandbox: Sandbox, path: str) -> None:
    assert requests.get(f"{sandbox.url}/_sandbox/{path}", timeout=5).status_code == 404


@pytest.mark.parametrize(("path", "body"), [("registrations", b'["x"]'), ("options", b"{"), ("registrations", b"null")])
def test_the_control_face_says_422_for_what_it_cannot_use(sandbox: Sandbox, path: str, body: bytes) -> None:
    assert requests.put(f"{sandbox.url}/_sandbox/{path}", body, timeout=5).status_code == 422


def test_every_call_is_logged_and_counted_but_those_of_the_control_face(sandbox: Sandbox, rhythm: Rhythm) -> None:
    began_at = time.time()
    rhythm.get("reg-1")
    rhythm.batch(patch_of("reg-1", *TO_PASSED), patch_of("reg-2", *TO_PASSED))
    rhythm.search({"ids": ["reg-3"]}, fieldsToReturn="id")
    rhythm.call("GET", "/studentExam/student-1/exam-1")
    calls = sandbox.requests()
    assert [
        (call["n"], call["method"], call["kind"], call["ids"], call["operations"], call["status"]) for call in calls
    ] == [
        (1, "GET", "get", ["reg-1"], 0, 200),
        (2, "POST", "batch", ["reg-1", "reg-2"], 2, 200),
        (3, "POST", "search", ["reg-3"], 0, 200),
        (4, "GET", "student_exam", ["student-1", "exam-1"], 0, 200),
    ]
    assert all(call["tenant"] == TENANT and call["path"].startswith("/examRegistrations/") for call in calls)
    assert calls[2]["path"].endswith("/search?fieldsToReturn=id")
    times = [began_at] + [call[name] for call in calls for name in ("at", "ended_at")] + [time.time()]
    assert times == sorted(times)
    assert sandbox.requests(after=3) == calls[3:]
    assert sandbox.counts() == {
        "calls": 4, "operations": 2, "writes": 2, "letters": 2, "tokens": 0,
        "by_kind": {"GET get": 1, "POST batch": 1, "POST search": 1, "GET student_exam": 1},
        "by_status": {"GET get 200": 1, "POST batch 200": 1, "POST search 200": 1, "GET student_exam 200": 1},
    }  # fmt: skip


def test_a_retry_after_is_logged_with_its_answer(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("status", status=503, headers={"Retry-After": "3"})
    rhythm.get("reg-1")
    assert [(one["status"], one["retry_after"], one["fault"]) for one in sandbox.requests()] == [(503, "3", "status")]


def test_a_reset_forgets_everything(sandbox: Sandbox, rhythm: Rhythm) -> None:
    rhythm.patch("reg-1", *TO_PASSED)
    sandbox.options(page_size=1)
    sandbox.fault("reset", times=None)
    sandbox.reset()
    assert (sandbox.registrations(TENANT), sandbox.letters(), sandbox.requests(), sandbox.faults()) == ({}, [], [], [])
    assert (sandbox.options()["page_size"], sandbox.counts()["writes"]) == (100, 0)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_process_says_when_it_is_ready_and_stops_with_exit_0(tmp_path: Path, stop: signal.Signals) -> None:
    seeds = tmp_path / "seed.json"
    seeds.write_text(json.dumps({TENANT: [{"id": "seeded"}]}))
    command = [sys.executable, "-m", "sandbox", "--seed", str(seeds)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.getcwd()}, **pipes) as process:
        line = process.stdout.readline()
        assert line.startswith("sandbox ready on http://127.0.0.1:")
        with Sandbox(line.split()[-1]) as sandbox:
            assert list(sandbox.registrations(TENANT)) == ["seeded"]
            process.send_signal(stop)
            assert process.wait(timeout=5) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
