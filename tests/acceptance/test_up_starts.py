"""Starts and ends of `examrelay up`: what is left after a kill or a power cut, and a mistake is one message."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import requests

from tests.acceptance.one_machine import Up, clean_environ, command, marked, one_message
from tests.events import certiverse
from tests.running import ROOT, Valkey, free_port, wait_until
from tests.tenants import ENVIRON, write_tenants

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and relies on prctl")


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
