"""`examrelay up` for tests: started as a user starts it, looked at from outside, and never left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import requests

from sandbox.control import Sandbox
from tests.events import certiverse, registration
from tests.running import ROOT, wait_until
from worker.local.running import Running, find

MARK = "EXAMRELAY_TEST_MARK"


class Up:
    """A running `examrelay up --sandbox` on data of its own."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.mark = uuid.uuid4().hex
        self.environ = clean_environ(self.mark, EXAMRELAY_DATA=str(data))
        with (data / "said").open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker", "up", "--sandbox", "--quiet", "--port", "0"],
                cwd=ROOT,
                env=self.environ,
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> "Up":
        try:
            self.running: Running = wait_until(lambda: find(self.data), 60, "up")
        except BaseException:
            self._end()
            raise
        self.rhythm = Sandbox(self.running.sandbox or "").__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.rhythm.__exit__()
        self._end()

    def _end(self) -> None:
        """However it stands, and whatever it has left behind."""
        self.process.kill()
        self.process.wait(10)
        try:
            wait_until(lambda: not self.alive(), 10, "the end of all children")
        finally:
            for pid in self.alive():
                os.kill(pid, signal.SIGKILL)

    @property
    def said(self) -> str:
        """What `up` itself has said."""
        return (self.data / "said").read_text()

    def alive(self) -> dict[int, str]:
        """The command lines of `up` and everything it has started, by process id."""
        return marked(self.mark, self.data)

    def pid(self, part: str) -> int | None:
        """The child of `up` whose command line has this part, when there is just one."""
        found = [pid for pid, line in self.alive().items() if part in line and parent(pid) == self.process.pid]
        return found[0] if len(found) == 1 else None

    def post(self, body: bytes) -> str:
        """Deliver a Certiverse result, as often as it takes to have it accepted. Returns its event's id."""
        url, password = f"{self.running.receiver}/v1/acme/certiverse", self.running.variables["ACME_CERTIVERSE"]

        def accepted() -> str:
            answer = requests.post(url, body, auth=("certiverse", password), timeout=5)
            assert answer.status_code in (202, 503), answer.text
            return str(answer.json().get("id", ""))

        return wait_until(accepted, 20, "the receiver")

    def goes_through(self) -> bool:
        """Whether a new result ends at its registration."""
        id = uuid.uuid4().hex[:8]
        self.rhythm.seed("acme.org", [registration(f"reg-{id}", student_id=f"stu-{id}")])
        event = self.post(certiverse(f"dlv-{id}", f"reg-{id}", student=f"stu-{id}"))
        wait_until(lambda: self.event(event)["state"] == "synced", 30, "the event")
        return (self.rhythm.registration("acme.org", f"reg-{id}") or {})["status"] == "passed"

    def event(self, id: str) -> dict[str, Any]:
        """An event, read through the receiver."""
        headers = {"Authorization": f"Bearer {self.running.variables['ACME_READ']}"}
        answer = requests.get(f"{self.running.receiver}/v1/acme/events/{id}", headers=headers, timeout=5)
        found: dict[str, Any] = answer.json()
        return found

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`examrelay ...` in another terminal: it knows the data folder, nothing else."""
        return command(*arguments, environ=self.environ)


def clean_environ(mark: str, **more: str) -> dict[str, str]:
    """This environment without what configures examrelay, under a mark that children inherit."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EXAMRELAY_", "ACME_"))}
    return {name: value for name, value in kept.items() if name not in ("REDIS_URL", "PORT")} | {MARK: mark} | more


def command(*arguments: str, environ: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run `examrelay` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "worker", *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
    )


def one_message(ended: "subprocess.CompletedProcess[str]") -> str:
    """All that was said: one line to stderr, under our name."""
    assert ended.stdout == ""
    assert ended.stderr.startswith("examrelay: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def marked(mark: str, data: Path) -> dict[int, str]:
    """The command lines of all living processes under a mark, by process id. Valkey writes over its environment, but
    works in its data folder."""
    wanted, found = f"{MARK}={mark}".encode(), {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            if folder.name.isdigit() and (
                wanted in (folder / "environ").read_bytes().split(b"\0") or data in (folder / "cwd").readlink().parents
            ):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def parent(pid: int) -> int:
    """The parent's process id; 0 when the process has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
