"""`examrelay up`, as a user meets it: everything comes up, comes up again, and goes away; a mistake is one message."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.acceptance.one_machine import Up, clean_environ, command, marked
from tests.events import certiverse, registration
from tests.running import ROOT, Valkey, free_port, wait_until
from tests.tenants import ENVIRON, write_tenants
from worker.local.children import Children, Program
from worker.local.running import find

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and relies on prctl")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("up")) as running:
        yield running


def test_a_posted_result_ends_at_its_registration(up: Up) -> None:
    assert up.goes_through()


def test_it_says_where_everything_is(up: Up) -> None:
    for place in (up.running.receiver, up.running.flower, up.running.sandbox, "/readyz", "examrelay status", up.data):
        assert str(place) in up.said
    assert requests.get(f"{up.running.flower}/healthcheck", timeout=5).ok
    wait_until(lambda: requests.get(f"{up.running.receiver}/readyz", timeout=5).ok, 10, "/readyz")


def test_what_children_say_is_kept_in_a_file_each(up: Up) -> None:
    logs = {path.stem for path in (up.data / "logs").iterdir()}
    assert logs >= {"valkey", "web", "worker", "sweeper", "beat", "flower", "sandbox"}


def test_the_variables_it_leaves_for_commands_are_for_this_user_only(up: Up) -> None:
    assert (up.data / "running.json").stat().st_mode & 0o077 == 0
    assert (up.data / "valkey" / "valkey.conf").stat().st_mode & 0o077 == 0


def test_status_has_the_keys_that_scripts_hold_on_to(up: Up) -> None:
    status = json.loads(up.command("status", "--json").stdout)
    assert set(status) == {"tenants", "sweep_at", "workers", "processes", "warnings", "durability"}
    assert set(status["tenants"]["acme"]) == {
        "states",
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


def test_children_do_not_outlive_a_killed_parent_and_after_a_power_cut_all_is_there(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        assert len(up.alive()) > 8
        id = up.post(certiverse("dlv-cut"))
        up.process.kill()
        wait_until(lambda: not up.alive(), 5, "the end of all children")
    (file,) = (tmp_path / "valkey" / "appendonlydir").glob("*.incr.aof")
    with file.open("ab") as written:
        written.write(b"*3\r\n$3\r\nSET\r\n$4\r\nha" + b"\0" * 4096)
    with Up(tmp_path) as up:
        assert f"had 4096 zero bytes at the end of {file}" in up.said
        assert up.event(id)["id"] == id


def test_told_twice_it_kills_at_once_what_does_not_end(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        stuck = wait_until(lambda: up.pid("worker@"), 5, "the worker")
        os.kill(stuck, signal.SIGSTOP)
        up.process.send_signal(signal.SIGINT)
        wait_until(lambda: up.pid("worker.receiver") is None, 10, "the end of the receiver")
        assert up.process.poll() is None
        up.process.send_signal(signal.SIGINT)
        up.process.wait(5)
        assert up.alive() == {}


class Notes:
    """Keeps what is said about children until there are so many messages."""

    def __init__(self, wanted: int) -> None:
        self.messages: list[str] = []
        self.enough = asyncio.Event()
        self._wanted = wanted

    def line(self, _name: str, _line: str) -> None: ...

    def about(self, _name: str, message: str) -> None:
        self.messages.append(message)
        if len(self.messages) == self._wanted:
            self.enough.set()


def kept(program: list[str], messages: int, between: Callable[[], object] = lambda: None) -> list[str]:
    """The first messages about a child that is kept running, which prints `up`. `between`: called once it is ready."""

    async def keep() -> list[str]:
        notes = Notes(messages)
        children = Children(os.environ, notes)
        await children.start([Program("dying", program, says="up")], 10)
        between()
        await asyncio.wait_for(notes.enough.wait(), 15)
        await children.stop([["dying"]])
        return notes.messages[:messages]

    return asyncio.run(keep())


def test_a_child_that_keeps_dying_is_started_ever_more_slowly() -> None:
    program = [sys.executable, "-S", "-c", "print('up', flush=True); input()"]
    assert kept(program, 2) == [f"ended with exit code 1; starting it again in {pause} s" for pause in (0.5, 1)]


def test_a_child_that_cannot_be_started_again_is_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.symlink_to("/bin/echo")
    assert kept([str(program), "up"], 4, between=program.unlink) == [
        "ended with exit code 0; starting it again in 0.5 s",
        "cannot be started: No such file or directory",
        "ended with exit code 0; starting it again in 1 s",
        "cannot be started: No such file or directory",
    ]


def test_a_child_that_does_not_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    ledger = tmp_path / "valkey" / "appendonlydir"
    ledger.mkdir(parents=True)
    (ledger / "appendonly.aof.manifest").write_text("garbage\n")
    mark = uuid.uuid4().hex
    ended = command("up", "--sandbox", "--quiet", environ=clean_environ(mark, EXAMRELAY_DATA=str(tmp_path)))
    assert ended.returncode == 1
    assert "valkey ended with exit code 1. It said last:" in ended.stderr
    assert "manifest" in ended.stderr
    assert marked(mark, tmp_path) == {}


def test_a_damaged_append_only_file_is_named_with_what_to_type(tmp_path: Path) -> None:
    files = tmp_path / "valkey" / "appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i\n")
    file = files / "appendonly.aof.1.incr.aof"
    file.write_bytes(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n" + b"\0" * 9 + b"damage")
    ended = command("up", "--sandbox", "--quiet", environ=clean_environ(uuid.uuid4().hex, EXAMRELAY_DATA=str(tmp_path)))
    assert ended.returncode == 1
    assert "Bad file format" in ended.stderr
    assert f"\n  mv {file} {file}.damaged && head -c 23 {file}.damaged > {file}\n" in ended.stderr


def one_message(ended: "subprocess.CompletedProcess[str]") -> str:
    """All that was said: one line to stderr, under our name."""
    assert ended.stdout == ""
    assert ended.stderr.startswith("examrelay: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def refused(tmp_path: Path, *options: str, **environ: str) -> str:
    """The one message of an `up` that refuses to start, with nothing started."""
    mark = uuid.uuid4().hex
    began = time.monotonic()
    ended = command("up", *options, environ=clean_environ(mark, EXAMRELAY_DATA=str(tmp_path / "data"), **environ))
    assert ended.returncode == 2
    assert marked(mark, tmp_path) == {}
    assert not (tmp_path / "data" / "logs").exists(), "something was started"
    assert time.monotonic() - began < 15
    return one_message(ended)


def test_an_occupied_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} is in use. Set PORT" in refused(tmp_path, "--sandbox", PORT=str(port))


def test_a_tenants_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "tenants.toml"
    config.write_text("[tenants.acme\n")
    assert f"{config}: not TOML" in refused(tmp_path, EXAMRELAY_CONFIG=str(config))


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "REDIS_URL is no address of a Redis" in refused(tmp_path, "--sandbox", REDIS_URL="127.0.0.1:6379")


def test_a_redis_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    told = refused(tmp_path, "--sandbox", REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert "cannot be used" in told
    assert "Check REDIS_URL" in told


def test_a_redis_that_may_lose_what_it_acknowledged_is_refused(tmp_path: Path) -> None:
    server = Valkey(appendfsync="everysec").start()
    try:
        told = refused(tmp_path, "--sandbox", REDIS_URL=server.url)
    finally:
        server.close()
    assert "appendfsync is everysec, must be always" in told
    assert "EXAMRELAY_DURABILITY=memory" in told


def test_the_procfile_runs_the_same_under_honcho(tmp_path: Path) -> None:
    server = Valkey().start()
    mark, port = uuid.uuid4().hex, free_port()
    environ = clean_environ(
        mark,
        REDIS_URL=server.url,
        PORT=str(port),
        FLOWER_PORT=str(free_port()),
        EXAMRELAY_CONFIG=str(write_tenants(tmp_path, "http://127.0.0.1:9")),
        **ENVIRON,
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )
    honcho = subprocess.Popen(
        [sys.executable, "-m", "honcho", "start"],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until(lambda: requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).ok, 40, "/readyz")
        flower = f"http://127.0.0.1:{environ['FLOWER_PORT']}/healthcheck"
        wait_until(lambda: requests.get(flower, timeout=5).ok, 20, "flower")
        honcho.terminate()
        honcho.wait(20)
        wait_until(lambda: not marked(mark, tmp_path), 10, "the end of all processes")
    finally:
        for pid in marked(mark, tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        honcho.wait(10)
        server.close()
