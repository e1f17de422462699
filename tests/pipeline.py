"""The pipeline without its processes: what the receiver, the workers and the sweeper call, called by the test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.control import Sandbox
from schemas.event import Event, Stage
from schemas.outcome import Source
from tasks.process import process_tenant
from tasks.sync import sync_tenant
from tests.tenants import ENVIRON, write_tenants
from worker.bootstrap import Services, build
from worker.ledger import queries
from worker.receiver.intake import Intake
from worker.settings import Settings

TENANT, ORG = "acme", "acme.org"


class Pipeline:
    """One tenant's events, from a payload to where they stand."""

    def __init__(self, services: Services, rhythm: Sandbox) -> None:
        self.services = services
        self.rhythm = rhythm
        self.ledger = services.ledger
        self._intake = Intake(services.settings)

    def deliver(self, body: bytes, source: Source = Source.CERTIVERSE, path: str = "") -> str:
        """Record a payload as `worker.enqueue` does. Returns its event's id."""
        return self._intake.accept(TENANT, source, body, path).id

    def close(self) -> None:
        """Close the connections."""
        self._intake.close()
        self.services.close()

    def process(self, tenant: str = TENANT) -> None:
        """What `tasks.process` does."""
        process_tenant(self.services, tenant)

    def sync(self, tenant: str = TENANT) -> None:
        """What `tasks.sync` does."""
        sync_tenant(self.services, tenant)

    def run(self, *bodies: bytes) -> list[Event]:
        """Deliver, process and sync. Returns the events."""
        ids = [self.deliver(body) for body in bodies]
        self.process()
        self.sync()
        return [self.event(id) for id in ids]

    def event(self, id: str, tenant: str = TENANT) -> Event:
        """Where an event stands."""
        found = queries.event(self.services.redis, tenant, id)
        assert found is not None
        return found

    def due_now(self) -> None:
        """Make everything that waits due and end every lease: the clock is Redis', so the due times are moved."""
        places = [f"er:{TENANT}:due:{stage}" for stage in Stage]
        with self.services.redis.pipeline() as commands:
            commands.delete(*(f"er:{TENANT}:slots:{stage}" for stage in Stage))
            for place in places:
                commands.zrange(place, 0, -1)
            _, *waiting = commands.execute()
            for place, ids in zip(places, waiting, strict=True):
                if ids:
                    commands.zadd(place, dict.fromkeys(ids, 0))
            commands.execute()

    def registration(self, id: str = "reg-1") -> dict[str, Any]:
        """A registration as the stand-in truly has it."""
        found = self.rhythm.registration(ORG, id)
        assert found is not None
        return found


@contextmanager
def pipeline_at(
    folder: Path, rhythm: Sandbox, /, *, lease_seconds: float = 120, patient: bool = False, **tables: str
) -> Iterator[Pipeline]:
    """A pipeline on REDIS_URL's Redis. `patient`: see `connect`; `tables`: see `write_tenants`."""
    os.environ.update(ENVIRON)
    config = write_tenants(folder, rhythm.url, **tables)
    pipeline = Pipeline(build(Settings(config=config, lease_seconds=lease_seconds), patient=patient), rhythm)
    try:
        yield pipeline
    finally:
        pipeline.close()
