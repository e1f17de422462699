"""The demo, as `make demo` runs it."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from sandbox.scenarios import scenarios
from tests.acceptance.one_machine import clean_environ, marked
from tests.running import ROOT


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_every_scenario_of_the_demo_ends_as_it_should_and_leaves_nothing_behind(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    environ = clean_environ(mark, TMPDIR=str(tmp_path))
    ended = subprocess.run(
        [sys.executable, "-m", "sandbox.demo"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=150
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("✓") == len(scenarios("any"))
    assert "✗" not in ended.stdout
    assert marked(mark, tmp_path) == {}


@pytest.mark.parametrize(
    ("target", "told"), [("demo", "sandbox.demo"), ("run", "sandbox.demo --stay"), ("bench", "bench")]
)
def test_make_calls_it(target: str, told: str) -> None:
    planned = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert f"-m {told}" in planned.stdout
