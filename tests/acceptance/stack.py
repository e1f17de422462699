"""All of examrelay as real processes, each of which a test can kill and start again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
import requests

from sandbox.control import Sandbox
from schemas.event import Event
from tests.pipeline import ORG, TENANT
from tests.running import ROOT, Valkey, free_port, wait_until
from tests.tenants import ENVIRON, write_tenants
from worker.ledger import queries
from worker.ledger.audit.books import Books, books
from worker.local.commands import ARGUMENTS

#: As `examrelay up` runs them, and a second worker under another name.
PROCESSES = ARGUMENTS | {"second": (*ARGUMENTS["worker"], "-n", "second@%h")}


class Stack:
    """The processes, by name, on one Valkey and one stand-in. `number`: of the database that they use."""

    def __init__(
        self,
        folder: Path,
        valkey: Valkey,
        rhythm: Sandbox,
        tables: dict[str, str],
        environ: dict[str, str],
        number: int = 0,
    ) -> None:
        #: What runs them, and where: the checkout, or examrelay as it is installed elsewhere.
        self.python, self.cwd = sys.executable, ROOT
        self.folder = folder
        self.valkey = valkey
        self.rhythm = rhythm
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.redis_url = valkey.url.removesuffix("0") + str(number)
        self.client = redis.Redis.from_url(self.redis_url, socket_timeout=5)
        config = write_tenants(folder, rhythm.url, **tables)
        self.environ = (
            os.environ
            | ENVIRON
            | environ
            | {
                "REDIS_URL": self.redis_url,
                "HOST": "127.0.0.1",
                "PORT": str(self.port),
                "EXAMRELAY_CONFIG": str(config),
                "EXAMRELAY_DATA": str(folder),
                "EXAMRELAY_LOG_FORMAT": "json",
            }
        )
        #: By process, what the others do not have.
        self.own: dict[str, dict[str, str]] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        """Start processes, and wait until the receiver answers where it is one of them."""
        for name in names:
            with self.log(name).open("ab") as output:
                self.running[name] = subprocess.Popen(
                    [self.python, "-m", *PROCESSES[name]],
                    cwd=self.cwd,
                    env=self.environ | self.own.get(name, {}),
                    start_new_session=True,
                    stdout=output,
                    stderr=output,
                )
        if "web" in names:
            wait_until(lambda: requests.get(f"{self.url}/healthz", timeout=2).ok, 20, "the receiver")

    def start_ready(self, name: str) -> None:
        """Start a worker, and wait until it says that it takes tasks."""
        before = self.log(name).read_bytes().count(b" ready.") if self.log(name).exists() else 0
        self.start(name)
        wait_until(lambda: self.log(name).read_bytes().count(b" ready.") > before, 30, f"{name} ready")

    def end(self, name: str, how: signal.Signals) -> None:
        """Signal a process and its children, and wait for it unless it is only stopped."""
        process = self.running[name]
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        if how not in (signal.SIGSTOP, signal.SIGCONT):
            process.wait(60)
            del self.running[name]

    def close(self) -> None:
        """Kill all."""
        for name in list(self.running):
            self.end(name, signal.SIGKILL)
        self.client.close()

    def log(self, name: str) -> Path:
        """A process' output."""
        return self.folder / f"{name}.log"

    def post(self, body: bytes, timeout: float = 10) -> requests.Response:
        """Deliver a payload to the receiver."""
        credentials = ("certiverse", ENVIRON["ACME_CERTIVERSE"])
        return requests.post(f"{self.url}/v1/{TENANT}/certiverse", body, auth=credentials, timeout=timeout)

    def deliver(self, bodies: Iterable[bytes], tenant: str = TENANT) -> list[str]:
        """Deliver payloads; each must be accepted. Returns the ids of their events."""
        ids = []
        with requests.Session() as session:
            session.auth = ("certiverse", ENVIRON["ACME_CERTIVERSE"])
            for body in bodies:
                answer = session.post(f"{self.url}/v1/{tenant}/certiverse", body, timeout=10)
                assert answer.status_code == 202, answer.text
                ids.append(answer.json()["id"])
        return ids

    def counts(self, tenant: str = TENANT) -> dict[str, int]:
        """How many events are in each state."""
        return queries.counts(self.client, tenant)

    def synced(self, count: int, seconds: float = 60, tenant: str = TENANT) -> None:
        """Wait until so many events are synced."""
        wait_until(lambda: self.counts(tenant).get("synced", 0) >= count, seconds, f"{count} synced events")

    def event(self, id: str) -> Event:
        """Where an event stands."""
        found = queries.event(self.client, TENANT, id)
        assert found is not None
        return found

    def books(self) -> Books:
        """The ledger's own account."""
        return books(self.client, TENANT)

    def written_once(self, registrations: Iterable[str]) -> None:
        """Every registration was written exactly once, and one letter went out for it."""
        for id in registrations:
            record: dict[str, Any] = self.rhythm.record(ORG, id)
            assert len(record["history"]) == 1, record["history"]
            assert len(record["letters"]) == 1


@contextmanager
def stack_at(
    folder: Path, rhythm: Sandbox, tables: dict[str, str] | None = None, valkey: Valkey | None = None, **environ: str
) -> Iterator[Stack]:
    """A stack with nothing running but its Valkey; all is ended with it. `tables`: see `write_tenants`."""
    valkey = (valkey or Valkey()).start()
    stack = Stack(folder, valkey, rhythm, tables or {}, environ)
    try:
        yield stack
    finally:
        stack.close()
        valkey.close()
