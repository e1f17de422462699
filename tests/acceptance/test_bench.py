"""The benchmark as `make bench` runs it: it measures, and leaves nothing behind, however it ends."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.ending import descendants
from tests.acceptance.one_machine import MARK, clean_environ, marked
from tests.running import ROOT, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and relies on prctl")


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Under a mark, and with a folder for temporary files of its own; what is left at the end is killed."""
    environ = clean_environ(uuid.uuid4().hex, TMPDIR=str(tmp_path))
    yield environ
    for pid in marked(environ[MARK], tmp_path):
        os.kill(pid, signal.SIGKILL)


def bench(environ: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bench", "--size", "tiny", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=str)
def test_nothing_outlives_a_benchmark_that_is_interrupted(
    environ: dict[str, str], tmp_path: Path, signum: signal.Signals
) -> None:
    with bench(environ, "backlog") as running:
        wait_until(lambda: _child_of_a_worker(environ, tmp_path), 100, "a worker's child")
        started = descendants(running.pid)
        assert len(started) > 8, "stand-in, Valkey, worker with four children, sweeper, beat"
        running.send_signal(signum)
        _, told = running.communicate(timeout=60)
    assert running.returncode == 128 + signum, told
    assert marked(environ[MARK], tmp_path) == {}
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_ends_is_ended_at_last_even_when_its_parent_is_gone(
    environ: dict[str, str], tmp_path: Path
) -> None:
    orphan = "import subprocess, sys; subprocess.Popen(['sleep', '300']); sys.exit()"
    told = f"""
import subprocess, sys, time
from bench.ending import all_ended
with all_ended():
    subprocess.run([sys.executable, "-c", {orphan!r}], start_new_session=True)
    print("ready", flush=True)
    time.sleep(300)
"""
    with subprocess.Popen([sys.executable, "-c", told], cwd=ROOT, env=environ, stdout=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stdout.readline() == b"ready\n"
        assert any("sleep 300" in line for line in marked(environ[MARK], tmp_path).values())
        running.terminate()
        running.wait(30)
    assert marked(environ[MARK], tmp_path) == {}


def _child_of_a_worker(environ: dict[str, str], folder: Path) -> bool:
    """Whether a worker has forked."""
    lines = list(marked(environ[MARK], folder).values())
    return sum("worker@" in line for line in lines) > 4


def test_rows_are_measured_by_name_and_told_as_json(environ: dict[str, str], tmp_path: Path) -> None:
    with bench(environ, "--json", "start", "lookups") as running:
        told, said = running.communicate(timeout=170)
    rows = json.loads(told)["rows"]
    assert list(rows) == ["start", "lookups"], said
    assert [line for lines in rows.values() for line in lines if line["ours"] is None] == []
    assert {(line["ours_effects"]["lost"], line["ours_effects"]["doubled"]) for line in rows["lookups"]} == {(0, 0)}
    assert marked(environ[MARK], tmp_path) == {}


def test_a_row_that_there_is_not_is_named(environ: dict[str, str]) -> None:
    with bench(environ, "backlogs") as running:
        _, said = running.communicate(timeout=60)
    assert running.returncode == 2
    assert "no row is called backlogs; the rows are backlog, " in said
