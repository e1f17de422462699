"""README's first table and CONTRIBUTING's five files are true: real deliveries go that way."""

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.main import get_command

from sandbox.control import Sandbox
from schemas.event import EventState
from tests.events import registration
from tests.pipeline import ORG
from tests.running import ROOT, Valkey, free_port
from tests.tenants import ENVIRON, write_tenants
from worker import queues
from worker.celery import app as celery_app
from worker.cli.app import app as command

TABLE = "| asked for | file | function or task |"


def rows() -> list[tuple[str, list[str], list[str]]]:
    """Each row of the table: what is asked for, the files, the names."""
    _, found, rest = (ROOT / "README.md").read_text().partition(TABLE)
    assert found, "README.md has the table"
    lines = rest.partition("\n\n")[0].strip().splitlines()[1:]
    cells = [line.strip("| ").split(" | ") for line in lines]
    return [(asked, re.findall("`([^`]+)`", files), re.findall("`([^`]+)`", names)) for asked, files, names in cells]


@pytest.fixture(scope="module")
def journey(valkey: Valkey, running_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The files and functions that real deliveries entered, in a process of their own."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    running_sandbox.reset()
    running_sandbox.seed(ORG, [registration(), registration("reg-2")])
    config = write_tenants(tmp_path_factory.mktemp("journey"), running_sandbox.url)
    environ = (
        os.environ
        | ENVIRON
        | {
            "REDIS_URL": valkey.url,
            "PORT": str(free_port()),
            "EXAMRELAY_CONFIG": str(config),
        }
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.journey", running_sandbox.url],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def functions(name: str, files: list[str]) -> list[Callable[..., Any]]:
    """The function or task of that name in each of the files that has one: of its own, or imported."""
    found = []
    for file in files:
        if file.endswith(".py"):
            place: Any = importlib.import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
            for part in name.split("."):
                place = getattr(place, part, None)
            if callable(place):
                found.append(inspect.unwrap(getattr(place, "run", place)))
    return found


def is_command(name: str) -> bool:
    """Whether `examrelay ...` is a command that exists."""
    place: Any = get_command(command)
    for word in name.split(" ")[1:]:
        place = getattr(place, "commands", {}).get(word)
    return name.startswith("examrelay ") and place is not None


@pytest.mark.parametrize(("asked", "files", "names"), rows(), ids=[row[0] for row in rows()])
def test_what_the_readme_names_is_called_on_the_way_of_a_real_delivery(
    journey: Any, asked: str, files: list[str], names: list[str]
) -> None:
    for file in files:
        assert (ROOT / file).exists() or (ROOT / "worker/ledger" / file).exists(), file
    called = {tuple(one) for one in journey["called"]}
    known = {*EventState, *celery_app.conf.beat_schedule, queues.PROCESS, queues.SYNC, queues.SWEEP, queues.RECEIVE}
    ways = 0
    for name in names:
        if name in known or is_command(name):
            continue
        codes = [one.__code__ for one in functions(name, files)]
        assert codes, f"{name} is in none of {files}"
        for code in codes:
            assert (str(Path(code.co_filename).relative_to(ROOT)), code.co_qualname) in called, name
            ways += 1
    assert ways, f"nothing in the row {asked!r} could be followed"


def test_a_delivery_goes_through_the_five_files_of_contributing_in_their_order(journey: Any) -> None:
    sentence = re.search(r"`[\w/.]+\.py`(?:\s*→\s*`[\w/.]+\.py`)+", (ROOT / "CONTRIBUTING.md").read_text())
    assert sentence
    files = re.findall("`([^`]+)`", sentence[0])
    assert len(files) == 5
    assert [file for file in journey["entered"] if file in files] == files
