"""The receiver needs neither root nor a disk that it can write to."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.acceptance.stack import Stack, stack_at
from tests.events import certiverse
from tests.running import ROOT, wait_until
from tests.senders import NOWHERE

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        os.getuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv"))), reason="needs root, unshare and setpriv"
    ),
]
NOBODY = 65534
#: In mounts of its own: Python where anybody may read it, everything read-only, and then no privilege left.
SCRIPT = """
set -e
mount --make-rprivate /
mount --bind "$1" "$2"
mount -t tmpfs -o ro tmpfs /dev/shm
mount -o remount,bind,ro "$2"
mount -o remount,bind,ro /
! touch "$2/x" "$HOME/x" /tmp/x /dev/shm/x 2>/dev/null
export LD_LIBRARY_PATH="$2/lib"
exec setpriv --reuid=$3 --regid=$3 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
    "$2/bin/python3" -m worker.receiver
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that others may read, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="examrelay-test-") as name:
        Path(name).chmod(0o755)
        (Path(name) / "python").mkdir()
        yield Path(name)


def test_a_user_without_rights_on_a_read_only_disk_receives_deliveries(folder: Path) -> None:
    with stack_at(folder, NOWHERE) as stack:
        started = start(stack)
        try:
            wait_until(lambda: stack.log("web").read_text(), 30, "its first line")
            assert "web.started" in stack.log("web").read_text()
            wait_until(lambda: requests.get(f"{stack.url}/healthz", timeout=2).ok, 30, "the receiver")
            status = Path(f"/proc/{started.pid}/status").read_text().split("\n")
            told = {name: value.split() for name, _, value in (line.partition(":") for line in status)}
            assert set(told["Uid"] + told["Gid"]) == {str(NOBODY)}
            assert int(told["CapEff"][0], 16) == int(told["CapBnd"][0], 16) == 0
            answer = stack.post(certiverse())
            assert answer.status_code == 202, stack.log("web").read_text()
            assert stack.post(certiverse()).json() == answer.json() | {"duplicate": True}
            assert "examrelay_up 1.0" in requests.get(f"{stack.url}/metrics", timeout=10).text
            assert requests.get(f"{stack.url}/readyz", timeout=10).json()["checks"]["redis"] is None
        finally:
            os.killpg(started.pid, signal.SIGTERM)
            ended = started.wait(20)
        log = stack.log("web").read_text()
        assert ended in (0, -signal.SIGTERM), log
        assert [word for word in ("Traceback", "Permission", "Read-only") if word in log] == []


def start(stack: Stack) -> "subprocess.Popen[bytes]":
    """The receiver, as the script starts it: in a group of its own, with the process id that it keeps."""
    packages = [place for place in sys.path if "site-packages" in place]
    environ = stack.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *packages]), "PYTHONDONTWRITEBYTECODE": ""}
    with stack.log("web").open("ab") as output:
        return subprocess.Popen(
            ["unshare", "-m", "sh", "-c", SCRIPT, "sh", sys.base_prefix, stack.folder / "python", str(NOBODY)],
            cwd="/",
            env=environ,
            start_new_session=True,
            stdout=output,
            stderr=output,
        )
