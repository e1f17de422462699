"""Setting up a fresh clone: what the locks name, whatever has been released since, and after an interruption."""

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.running import ROOT, wait_until

LATER = "9999.0"


class Index:
    """A package index on loopback: the files that the locks name, and a later release of each package."""

    def __init__(self, folder: Path, locked: dict[str, str]) -> None:
        self.asked: list[str] = []
        wheels = folder / "wheels"
        lock = str(ROOT / "requirements-dev.lock")
        pip("download", "--no-deps", "--require-hashes", "-d", str(wheels), "-r", lock)
        for file in wheels.iterdir():
            name = re.match(r"[A-Za-z0-9_.]+?(?=-[0-9])", file.name)
            assert name, file
            place(folder, name[0]).joinpath(file.name).hardlink_to(file)
        for name in locked:
            later(place(folder, name), name)
        handler = partial(_Handler, self.asked, directory=str(folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def environ(self) -> dict[str, str]:
        """An environment in which pip and uv know this index and nothing else."""
        url = f"http://127.0.0.1:{self.server.server_port}/simple"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "MAKE", "MFLAGS"))
        }
        return kept | {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": url,
            "UV_DEFAULT_INDEX": url,
            "UV_NO_CONFIG": "1",
        }


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, asked: list[str], *args: object, directory: str) -> None:
        self._asked = asked
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]

    def log_request(self, *_: object) -> None:
        self._asked.append(self.path)


def pip(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *args],
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def place(folder: Path, name: str) -> Path:
    """Where an index has a package (PEP 503)."""
    made = folder / "simple" / re.sub(r"[-_.]+", "-", name).lower()
    made.mkdir(parents=True, exist_ok=True)
    return made


def later(folder: Path, name: str) -> None:
    """A later release of a package, with nothing in it."""
    plain = name.replace("-", "_")
    info = f"{plain}-{LATER}.dist-info"
    with zipfile.ZipFile(folder / f"{plain}-{LATER}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {LATER}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def locked(lock: str) -> dict[str, str]:
    """What a lock names for this Python: name -> version."""
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z]+\])?==([^ ;]+)", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    made = Index(tmp_path_factory.mktemp("index"), locked("requirements-dev.lock"))
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that git has, as they are now."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    copy = subprocess.run(
        ["tar", "-c", "--null", "-T", "-"], cwd=ROOT, input=files, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=copy, check=True)
    return tmp_path


def make(clone: Path, environ: dict[str, str], target: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["make", target, f"PYTHON={sys.executable}"],
        cwd=clone,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def installed(clone: Path) -> dict[str, str]:
    """What is installed in a clone: name -> version. The checkout itself and pip are left out."""
    python = str(clone / ".venv/bin/python")
    told = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    found = {re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"] for one in json.loads(told.stdout)}
    return {name: version for name, version in found.items() if name not in ("pip", "examrelay")}


def test_later_releases_change_nothing_and_an_interrupted_set_up_is_begun_anew(index: Index, clone: Path) -> None:
    interrupted = make(clone, index.environ, "setup")
    site = clone / ".venv/lib"
    wait_until(lambda: any(site.glob("*/site-packages/celery/*.py")), 100)
    os.killpg(interrupted.pid, signal.SIGKILL)
    interrupted.communicate()

    index.asked.clear()
    again = make(clone, index.environ, "tools")
    told, _ = again.communicate(timeout=170)
    assert again.returncode == 0, told
    assert "interrupted" in told
    assert told.count("\n") > 20, "it says what it is doing"
    found = installed(clone)
    assert found.items() <= locked("requirements-dev.lock").items()
    assert not [path for path in index.asked if LATER in path]
    python = str(clone / ".venv/bin/python")
    checked = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_lock_of_what_runs_has_no_tools_and_uv_installs_it_as_well(index: Index, tmp_path: Path) -> None:
    runs, tools = locked("requirements.lock"), locked("requirements-dev.lock")
    assert runs.items() <= tools.items(), "one version of each, in both locks"
    assert not {"pytest", "mypy", "ruff", "uv", "coverage"} & runs.keys()
    uv, python = [sys.executable, "-m", "uv", "--quiet"], str(tmp_path / "venv/bin/python")
    for command in (
        ["venv", "--python", sys.executable, str(tmp_path / "venv")],
        ["pip", "install", "--python", python, "--require-hashes", "-r", str(ROOT / "requirements.lock")],
        ["pip", "check", "--python", python],
    ):
        done = subprocess.run([*uv, *command], env=index.environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
