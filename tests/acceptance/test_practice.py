"""The first act of the runbook in the sandbox: a code is added to the exam map, and what was held for it is written."""

import json
import sys
from pathlib import Path

import pytest

from tests.acceptance.one_machine import Up
from tests.events import certiverse, registration
from tests.running import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and relies on prctl")


def test_a_code_is_added_to_the_exam_map_and_what_was_held_is_written(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        up.rhythm.seed("acme.org", [registration("reg-1"), registration("reg-9", student_id="stu-9")])
        written = up.post(certiverse())
        held = up.post(certiverse("dlv-9", "reg-9", student="stu-9", exam="CERT-9"))
        wait_until(lambda: up.event(held)["state"] == "held" and up.event(written)["state"] == "synced", 30, "both")
        sent = json.loads(up.command("send", "--sample", "prov", "--tenant", "acme", "--json").stdout)
        assert [(one["status"], one["duplicate"]) for one in sent] == [(202, False)]
        assert "There are: certiverse," in up.command("send", "--sample", "none", "--tenant", "acme").stderr
        assert "examrelay plan --id" not in up.command("events", "show", held).stdout, "not in a pipe"
        config = up.running.variables["EXAMRELAY_CONFIG"]
        before = Path(config).read_text()
        Path(config).write_text(before.replace('codes = ["CERT-1"]', 'codes = ["CERT-1", "CERT-9"]'))
        planned = up.command("plan", "--id", held)
        assert "would be written to registration reg-9" in planned.stdout
        assert "this command reads another tenants file" in planned.stderr
        up.process.terminate()
        assert up.process.wait(30) == 0
    with Up(tmp_path) as up:
        replayed = up.command("replay", "--reason", "unknown_exam", "--yes")
        assert (replayed.returncode, replayed.stdout.splitlines()[-1], replayed.stderr) == (0, "1 replayed", "")
        wait_until(lambda: up.event(held)["state"] == "synced", 30, "the event")
        assert (up.rhythm.registration("acme.org", "reg-9") or {})["status"] == "passed"
        audited = up.command("audit")
        assert audited.returncode == 0, audited.stdout + audited.stderr
        assert up.command("check", "--file").returncode == 0
