"""`examrelay up`, as a user meets it: all comes up, comes up again, and goes away. One instance for all tests."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.acceptance.one_machine import Up, command, one_message
from tests.console_peer import Browser
from tests.events import certiverse, registration
from tests.running import wait_until
from worker.local.running import find

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and relies on prctl")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("up")) as running:
        yield running


def test_a_posted_result_ends_at_its_registration(up: Up) -> None:
    assert up.goes_through()


def test_it_says_where_everything_is(up: Up) -> None:
    for place in (
        up.running.receiver,
        up.running.flower,
        up.running.console,
        up.running.sandbox,
        "/readyz",
        "examrelay status",
        up.data,
    ):
        assert str(place) in up.said
    assert requests.get(f"{up.running.flower}/healthcheck", timeout=5).ok
    wait_until(lambda: requests.get(f"{up.running.receiver}/readyz", timeout=5).ok, 10, "/readyz")


def test_it_tells_how_to_sign_in_to_the_console_once(up: Up) -> None:
    (told,) = re.findall(r"sign in once +as (\S+), password (\S+)", up.said)
    with Browser(up.running.console) as first, Browser(up.running.console) as second:
        assert first.sign_in(*told).path == "/"
        assert "acme" in first.get("/").text
        assert second.sign_in(*told).status == 403
    name, password = up.command("console", "--sign-in").stdout.split()[1::2]
    with Browser(up.running.console) as third:
        assert third.sign_in(name, password).path == "/"


def test_what_children_say_is_kept_in_a_file_each(up: Up) -> None:
    logs = {path.stem for path in (up.data / "logs").iterdir()}
    assert logs >= {"valkey", "web", "worker", "sweeper", "beat", "console", "flower", "sandbox"}


def test_the_variables_it_leaves_for_commands_are_for_this_user_only(up: Up) -> None:
    assert (up.data / "running.json").stat().st_mode & 0o077 == 0
    assert (up.data / "valkey" / "valkey.conf").stat().st_mode & 0o077 == 0


def test_status_has_the_keys_that_scripts_hold_on_to(up: Up) -> None:
    status = json.loads(up.command("status", "--json").stdout)
    assert set(status) == {"tenants", "sweep_at", "workers", "processes", "warnings", "durability"}
    assert set(status["tenants"]["acme"]) == {
        "states",
        "accepted",
        "pruned",
        "oldest_seconds",
        "gate",
        "received",
        "ready",
        "held",
        "dead",
        "refused",
    }
    assert (status["durability"], len(status["workers"])) == ("fsync", 2)


@pytest.mark.parametrize("part", ["worker.receiver", "worker@", "valkey-server"])
def test_a_child_that_is_killed_comes_back_and_work_goes_on(up: Up, part: str) -> None:
    before = wait_until(lambda: up.pid(part), 5, "the child")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: up.pid(part) not in (None, before), 20, "a new child")
    assert up.goes_through()
    assert "was ended by SIGKILL; starting it again in 0.5 s" in up.said


def test_valkey_takes_its_memory_from_mimalloc_and_no_other_child_does(up: Up) -> None:
    assert "libmimalloc" in Path(f"/proc/{up.pid('valkey-server')}/maps").read_text()
    assert "libmimalloc" not in Path(f"/proc/{up.pid('worker.receiver')}/maps").read_text()


def test_a_second_one_on_the_same_data_says_so_and_stops(up: Up) -> None:
    ended = command("up", environ=up.environ)
    assert ended.returncode == 2
    assert "another `examrelay up` runs on this data folder" in one_message(ended)


def test_a_held_event_is_found_answered_and_synced(up: Up) -> None:
    up.rhythm.seed("acme.org", [registration(f"reg-two-{one}", student_id="stu-two") for one in "ab"])
    id = up.post(certiverse("dlv-two", None, student="stu-two"))
    wait_until(lambda: up.event(id)["state"] == "held", 20, "the event")

    held = json.loads(up.command("held", "list", "--json", "--reason", "registration_ambiguous").stdout)
    assert (held["reasons"], held["events"][0]["id"]) == ({"registration_ambiguous": 1}, id)
    refused = up.command("replay", "--id", id, "--yes")
    assert refused.returncode == 1
    assert "needs --registration" in refused.stderr
    assert "reg-two-a, reg-two-b" in refused.stderr

    assert up.command("replay", "--id", id, "--registration", "reg-two-b", "--yes").returncode == 0
    wait_until(lambda: up.event(id)["state"] == "synced", 20, "the event")
    assert (up.rhythm.registration("acme.org", "reg-two-b") or {})["status"] == "passed"


def test_a_file_is_sent_and_its_event_discarded_by_name(up: Up, tmp_path: Path) -> None:
    payload = tmp_path / "payload.json"
    payload.write_bytes(certiverse("dlv-sent", exam="CERT-9"))
    sent = up.command("send", str(payload), "--tenant", "acme", "--source", "certiverse", "--json")
    (receipt,) = json.loads(sent.stdout)
    assert (sent.returncode, receipt["status"]) == (0, 202)
    wait_until(lambda: up.event(receipt["id"])["state"] == "held", 20, "the event")

    asked = up.command("discard", "--reason", "unknown_exam", "--why", "a trial")
    assert (asked.returncode, asked.stdout) == (2, "1 event to discard\n")
    done = up.command("discard", "--reason", "unknown_exam", "--why", "a trial", "--yes")
    assert done.returncode == 0
    shown = json.loads(up.command("events", "show", receipt["id"], "--json").stdout)
    assert (shown["state"], shown["detail"], shown["history"][-1]["move"]) == ("discarded", "a trial", "discard")


def test_sigterm_ends_everything_in_order_and_is_no_failure(up: Up) -> None:
    # The last one on the shared instance.
    up.process.terminate()
    assert up.process.wait(30) == 0
    assert up.alive() == {}
    assert find(up.data) is None
    assert "Valkey is now ready to exit" in (up.data / "logs" / "valkey.log").read_text()
    last_said = {path.stem: path.stat().st_mtime_ns for path in (up.data / "logs").iterdir()}
    assert last_said["web"] <= last_said["worker"] <= last_said["valkey"]
