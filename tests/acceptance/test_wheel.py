"""The wheel of `make dist`, installed beside the locked packages and run in another folder: nothing of the checkout is
needed. Two deployments of it on one Redis server do not disturb each other.
"""

import re
import shlex
import socket
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import celery
import pytest
import requests

from sandbox.control import Sandbox
from tests.acceptance.stack import Stack
from tests.events import certiverse, registration
from tests.pipeline import ORG
from tests.running import ROOT, Valkey, wait_until
from tests.tenants import ENVIRON, write_tenants
from worker.ledger.processes import processes

PACKAGES = ("schemas", "worker", "tasks", "sandbox")
BIN = Path(sys.executable).parent


def tracked(*folders: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def recipe(target: str, folder: Path) -> None:
    """Run a target's commands of the Makefile in another folder, without what it depends on."""
    lines = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lines
    for line in lines[1].splitlines():
        command = shlex.split(line.strip().removeprefix("@").replace("$(BIN)", str(BIN)))
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the files that git has, as they are now."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in tracked():
        if not name.startswith(("tests/", "bench/", "chaos/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    recipe("dist", folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the wheel and the locked packages; of the checkout it knows nothing."""
    folder = tmp_path_factory.mktemp("installed")
    uv = [str(BIN / "uv"), "--quiet", "--offline"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(folder)], check=True)
    found = folder / "bin/python"
    subprocess.run([*uv, "pip", "install", "--no-deps", "--python", str(found), str(wheel)], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A folder that a .pth names is searched, but the .pth files in it, of which one leads to the checkout, are not.
    (folder / "lib" / version / "site-packages/locked.pth").write_text(sysconfig.get_path("purelib"))
    return found


@pytest.fixture
def pair(python: Path, rhythm: Sandbox, tmp_path: Path) -> Iterator[tuple[Stack, Stack]]:
    """Two deployments on one server: `acme` in the database 0, `beta` in the database 1."""
    valkey = Valkey().start()
    stacks = []
    try:
        for number, tenant in enumerate(("acme", "beta")):
            folder = tmp_path / tenant
            folder.mkdir()
            stack = Stack(folder, valkey, rhythm, {}, {}, number)
            config = folder / "examrelay.toml"
            config.write_text(config.read_text().replace("tenants.acme", f"tenants.{tenant}"))
            stack.python, stack.cwd = str(python), folder
            stack.environ.pop("PYTHONPATH", None)
            stacks.append(stack)
        yield stacks[0], stacks[1]
    finally:
        for stack in stacks:
            stack.close()
        valkey.close()


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == set(tracked(*PACKAGES))


def test_the_command_runs_in_another_folder(python: Path, tmp_path: Path) -> None:
    write_tenants(tmp_path, "http://127.0.0.1:9")
    for arguments in (["--version"], ["check", "--file"]):
        done = subprocess.run(
            [python.parent / "examrelay", *arguments], cwd=tmp_path, env=ENVIRON, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    from_where = "import schemas, tasks, worker.cli.app as app; print(app.__file__, schemas.__file__, tasks.__file__)"
    told = subprocess.run([python, "-c", from_where], cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
    assert all(str(python.parent.parent) in path for path in told.stdout.split()), told.stdout


def pinged(stack: Stack) -> set[str]:
    """The workers that answer a Celery client of this deployment."""
    with celery.Celery(broker=stack.redis_url) as client:
        return {name for answer in client.control.ping(timeout=1) for name in answer}


def test_two_deployments_on_one_server_do_not_disturb_each_other(pair: tuple[Stack, Stack]) -> None:
    acme, beta = pair
    host = socket.gethostname()
    acme.rhythm.seed(ORG, [registration("reg-1"), registration("reg-2")])
    for stack, worker in ((acme, "worker"), (beta, "second")):
        stack.start("web")
        stack.start_ready(worker)
    acme.deliver([certiverse("dlv-1", "reg-1")])
    beta.deliver([certiverse("dlv-2", "reg-2")], "beta")
    acme.synced(1)
    beta.synced(1, tenant="beta")
    acme.written_once(["reg-1", "reg-2"])
    assert requests.post(f"{acme.url}/v1/beta/certiverse", b"{}", timeout=5).status_code == 404
    assert (acme.client.keys("er:beta:*"), beta.client.keys("er:acme:*")) == ([], [])
    for stack, worker in ((acme, f"worker@{host}"), (beta, f"second@{host}")):
        assert pinged(stack) == {worker}
        wait_until(
            lambda stack=stack, worker=worker: (
                {one.name for one in processes(stack.client)} == {worker, f"web@{host}:{stack.port}"}
            ),
            20,
            "both processes, and no other, in the register",
        )
    with celery.Celery(broker=acme.redis_url) as client:
        client.control.shutdown()
    assert acme.running["worker"].wait(60) == 0, "as from Flower; a supervisor must start it again all the same"
    assert pinged(beta) == {f"second@{host}"}, "the other deployment's worker was not told"
