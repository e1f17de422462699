"""Both sides as real processes: Valkey, stand-in, workers, receivers. Everything on loopback, ended with its block.

Ours runs as `examrelay up` runs it. Each side has a Valkey of its own, with the same durable configuration.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import redis
from celery import Celery

from bench import naive
from bench.measure import RedisCounts, cpu_seconds
from bench.payloads import Sitting
from sandbox.control import Sandbox
from schemas.outcome import Source
from tests.running import ROOT, Valkey, free_port, wait_until
from tests.tenants import ENVIRON, write_tenants
from worker.ledger import queries
from worker.local.commands import ARGUMENTS
from worker.receiver.intake import Intake
from worker.settings import Settings

TENANT, ORG = "acme", "acme.org"
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")
_LOADERS: Final = 4
_STASH: Final = "naive.stash"


class Side:
    """A Valkey and the processes on it."""

    queue: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.valkey = Valkey().start()
        self.client = redis.Redis.from_url(self.valkey.url)
        self.valkey_pid = int(self.client.info("server")["process_id"])
        self.port = free_port()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        # Proxies of the environment are not for loopback.
        self.environ = {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}

    def start(self, name: str, *arguments: str) -> None:
        """Start a process in a session of its own."""
        with (self.folder / f"{type(self).__name__}-{name}.log").open("ab") as output:
            self.running[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self.environ,
                start_new_session=True,
                stdout=output,
                stderr=output,
            )

    def end(self, name: str) -> None:
        """End a process and all its children, at once: there is nothing here worth keeping."""
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def cpu(self) -> float:
        """Seconds that its processes and its Valkey have used so far."""
        return cpu_seconds([process.pid for process in self.running.values()], [self.valkey_pid])

    def valkey_cpu(self) -> float:
        """Seconds that its Valkey has used so far."""
        return cpu_seconds([], [self.valkey_pid])

    def counts(self) -> RedisCounts:
        """What its Valkey has counted so far."""
        return RedisCounts.of(self.client)

    def messages(self) -> int:
        """Celery messages that wait or are not acknowledged."""
        return self.client.llen(self.queue) + self.client.hlen("unacked")  # type: ignore[operator,unused-ignore]

    def used_memory(self) -> int:
        """Bytes that its Valkey uses."""
        return int(self.client.info("memory")["used_memory"])

    def answers(self, path: str = "/healthz") -> None:
        """Wait until its receiver takes connections."""

        def look() -> bool:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            connection.request("GET", path)
            return bool(connection.getresponse().status)

        wait_until(look, 30, "the receiver")

    def close(self) -> None:
        """End everything."""
        for name in list(self.running):
            self.end(name)
        self.client.close()
        self.valkey.close()


class Ours(Side):
    """examrelay."""

    queue = "examrelay"

    def __init__(self, folder: Path, rhythm_url: str) -> None:
        super().__init__(folder)
        self.environ |= ENVIRON | {
            "REDIS_URL": self.valkey.url,
            "PORT": str(self.port),
            "EXAMRELAY_DATA": str(folder),
            "EXAMRELAY_CONFIG": str(write_tenants(folder, rhythm_url, rhythm="concurrency = 4")),
            "EXAMRELAY_LOG_FORMAT": "json",
        }
        self.app = Celery(broker=self.valkey.url)
        os.environ.update(self.environ)
        self._intake = Intake(Settings())

    def start_all(self, *names: str) -> None:
        """Start some of its processes."""
        for name in names:
            self.start(name, "-m", *ARGUMENTS[name])

    def load(self, sittings: Sequence[Sitting]) -> None:
        """Record events as `worker.enqueue` does, without a hint; several at a time share an fsync.

        The sweeper, which would send the hint that is missing, stands still meanwhile.
        """
        self._signal("sweeper", signal.SIGSTOP)
        self.client.set(f"er:{TENANT}:hint", int(time.time() * 1000))
        with ThreadPoolExecutor(_LOADERS) as loaders:
            list(loaders.map(lambda one: self._intake.accept(TENANT, Source.CERTIVERSE, one.body), sittings))
        self._signal("sweeper", signal.SIGCONT)

    def _signal(self, name: str, signum: signal.Signals) -> None:
        if name in self.running:
            os.killpg(self.running[name].pid, signum)

    def go(self) -> None:
        """The hint that the receiver would have sent."""
        self.app.send_task("tasks.process", args=[TENANT], queue=self.queue)

    def count(self, state: str) -> int:
        """Events in a state."""
        return queries.counts(self.client, TENANT).get(state, 0)

    def unfinished(self) -> int:
        """Events that are not in Rhythm yet. Fails when there is one that never will be."""
        counts = queries.counts(self.client, TENANT)
        if counts.get("held", 0) or counts.get("dead", 0):
            raise RuntimeError(f"not every event could be synced: {counts}")
        return counts["accepted"] - counts.get("synced", 0)


class Naive(Side):
    """The naive pipeline. Its worker is one of several pools."""

    queue = naive.QUEUE

    def __init__(self, folder: Path, rhythm_url: str) -> None:
        super().__init__(folder)
        self.environ |= {
            "NAIVE_REDIS_URL": self.valkey.url,
            "NAIVE_RHYTHM_URL": f"{rhythm_url}/examRegistrations/{ORG}",
        }
        # Its own connection: the app's pool belongs to the first broker it met.
        self.producer = naive.app.amqp.Producer(naive.app.connection_for_write(self.valkey.url))

    def start_worker(self, pool: str, concurrency: int) -> None:
        """Its worker; log lines for each task are off, as ours are."""
        quiet = ("-l", "WARNING", "--without-gossip", "--without-mingle", "-E")
        pooled = ("-P", pool, "-c", str(concurrency), "-Q", naive.QUEUE)
        self.start("worker", "-m", "celery", "-A", "bench.naive", "worker", *pooled, *quiet)

    def start_receiver(self, kind: str) -> None:
        """One of the receivers of bench/receivers.py."""
        self.start("web", "-m", "bench.receivers", kind, str(self.port))

    def load(self, sittings: Sequence[Sitting]) -> None:
        """Messages, each with its payload, as its own receiver sends them, put where `go` takes them from."""
        for one in sittings:
            naive.sync.apply_async((json.loads(one.body),), producer=self.producer, queue=_STASH)

    def go(self) -> None:
        """All of them onto the worker's queue at once."""
        self.client.rename(_STASH, naive.QUEUE)


@contextmanager
def machines(rhythm: Sandbox) -> Iterator[tuple[Ours, Naive]]:
    """Both sides, each with its Valkey and nothing else running yet."""
    with tempfile.TemporaryDirectory(prefix="examrelay-bench-") as name:
        ours, other = Ours(Path(name), rhythm.url), Naive(Path(name), rhythm.url)
        try:
            yield ours, other
        finally:
            ours.close()
            other.close()
