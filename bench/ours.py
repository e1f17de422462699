"""examrelay as a side: it runs as `examrelay up` runs it. Only this module knows its keys, tasks and states."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Final

from celery import Celery

from bench import ledger
from bench.measure import wait
from bench.payloads import Sitting
from bench.sides import Side
from schemas.outcome import Source
from tests.running import ROOT
from tests.tenants import ENVIRON, write_tenants
from worker.bootstrap import Services
from worker.errors import LedgerUnavailable
from worker.ledger import queries, strays
from worker.ledger.identity import Identity
from worker.ledger.sealed import Sealer
from worker.local.commands import ARGUMENTS
from worker.receiver.intake import Intake
from worker.settings import Settings

TENANT: Final = "acme"
SECOND: Final = "beta"
PIPELINE: Final = ("worker", "sweeper", "beat")
_LOADERS: Final = 8
_LONGEST_LOAD: Final = 3_600


class Ours(Side):
    """Prefork with four children, `-E`. `rhythm`: more lines of its tenant's table."""

    org = "acme.org"
    queue = "examrelay"
    #: They share the registrations of one organisation, and the events.
    tenants: tuple[str, ...] = (TENANT,)

    def __init__(self, folder: Path, name: str, rhythm_url: str, rhythm: str = "concurrency = 4") -> None:
        super().__init__(folder, name)
        config = write_tenants(self.folder, rhythm_url, rhythm=rhythm)
        if SECOND in self.tenants:
            config.write_text(config.read_text() + config.read_text().replace(f"tenants.{TENANT}", f"tenants.{SECOND}"))
        self.environ |= ENVIRON | {
            "REDIS_URL": self.valkey.url,
            "PORT": str(self.port),
            "EXAMRELAY_DATA": str(self.folder),
            "EXAMRELAY_CONFIG": str(config),
            "EXAMRELAY_LOG_FORMAT": "json",
        }
        self._app = Celery(broker=self.valkey.url)
        os.environ.update(self.environ)
        self._intake = Intake(Settings())

    def start_all(self, *names: str) -> None:
        """Start some of its processes."""
        for name in names:
            self.start(name, "-m", *ARGUMENTS[name])

    def start_workers(self, main: int, children: int) -> None:
        """Start so many main processes of workers with so many children each, and the rest of the pipeline."""
        self.start_all("sweeper", "beat")
        for number in range(main):
            arguments = [str(children) if one == "4" else one for one in ARGUMENTS["worker"]]
            self.start(f"worker-{number}", "-m", *arguments, "-n", f"worker-{number}@%h")

    def load(self, sittings: Sequence[Sitting]) -> None:
        """Record events as `worker.enqueue` does; several at a time share an fsync.

        No hint is sent, nor repeated by the sweep: its mark is there already, and says a time to come.
        """
        before = self.count("received")
        for tenant in self.tenants:
            self.client.set(f"er:{tenant}:hint", int((time.time() + _LONGEST_LOAD) * 1000))
        loaders = ThreadPoolExecutor(_LOADERS)
        try:
            list(loaders.map(self._record, cycle(self.tenants), sittings))
        finally:
            loaders.shutdown(cancel_futures=True)  # when it is interrupted, no further one is begun
        if self.count("received") - before != len(sittings):
            raise RuntimeError("a late hint found the backlog before it was whole")

    def _record(self, tenant: str, sitting: Sitting) -> None:
        """Record one, again while the ledger does not answer within its second: on a busy machine it may not."""
        for _ in range(20):
            with suppress(LedgerUnavailable):
                self._intake.accept(tenant, Source.CERTIVERSE, sitting.body)
                return
        raise RuntimeError("the ledger does not answer")

    def go(self) -> None:
        """The hints that the receiver would have sent."""
        for tenant in self.tenants:
            self._app.send_task("tasks.process", args=[tenant], queue=self.queue)

    def drained(self) -> bool:
        """Whether every event is in Rhythm."""
        return not self.unfinished() and not self.messages()

    def unfinished(self) -> int:
        """Events that are not in Rhythm yet. Fails when there is one that never will be."""
        counts = {state: self.count(state) for state in ("accepted", "synced", "held", "dead")}
        if counts["held"] or counts["dead"]:
            raise RuntimeError(f"not every event could be synced: {counts}")
        return counts["accepted"] - counts["synced"]

    def synced_at(self, event: str) -> float:
        """When an event was settled, in seconds of the epoch."""
        found = queries.event(self.client, TENANT, event)
        return max(entry.at.timestamp() for entry in found.history if entry.move == "settle") if found else 0.0

    def fill(self, events: int) -> None:
        """So many synced events in the ledger. Its file is written in one go afterwards."""
        self.client.config_set("appendonly", "no")
        ledger.load(self.client, Identity(b"bench"), TENANT, events)
        self.client.config_set("appendonly", "yes")
        wait(lambda: not self.client.info("persistence")["aof_rewrite_in_progress"], 300, "the ledger's file")

    def have_waiting(self, events: int) -> None:
        """So many events more that wait for a person."""
        ledger.stop(self.client, TENANT, events)

    def have_strays(self, count: int) -> None:
        """So many messages that could not be recorded."""
        for number in range(count):
            strays.keep(self.client, Sealer(), "no such tenant", str(number), b'[["acne", "prov", "%d"], {}]' % number)

    def command(self, *arguments: str) -> float:
        """Run `examrelay` with these arguments, as a user does. Returns the seconds that it took."""
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "worker", *arguments], cwd=ROOT, env=self.environ, capture_output=True, text=True
        )
        if done.returncode not in (0, 1):  # 1: what it found is not as it should be
            raise RuntimeError(f"examrelay {' '.join(arguments)}: {done.stderr or done.stdout}")
        return time.perf_counter() - began

    def prune_payloads(self) -> None:
        """What 30 days do to payloads of final events."""
        names = list(self.client.scan_iter(f"er:{TENANT}:payload:*", count=1000))
        for start in range(0, len(names), 1000):
            self.client.delete(*names[start : start + 1000])

    def close(self) -> None:
        """End everything."""
        with suppress(AttributeError):  # it was interrupted before it had them
            self._intake.close()
            self._app.close()
        super().close()

    def count(self, state: str) -> int:
        """Events in a state, of all its tenants."""
        return sum(queries.counts(self.client, tenant).get(state, 0) for tenant in self.tenants)


class TwoTenants(Ours):
    """The same with two tenants, whose events come in turns."""

    tenants = (TENANT, SECOND)


class Unwatched(Ours):
    """The same without Celery's events."""

    def start_all(self, *names: str) -> None:
        """As that, but without `-E`."""
        for name in names:
            self.start(name, "-m", *(argument for argument in ARGUMENTS[name] if argument != "-E"))


def work(services: Services) -> None:
    """One task's work, for a profile in this process.

    Call it only when the environment is set: importing the tasks builds the Celery app.
    """
    from tasks.process import process_tenant

    process_tenant(services, TENANT)
