"""The pipeline without its processes: what the receiver, the workers and the sweeper call, called by the test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sandbox.control import Sandbox
from schemas.event import Event
from schemas.outcome import Source
from tasks import process, sync
from tasks.steps.batch import Run
from tasks.steps.claiming import work
from tasks.steps.job import Job, undecided
from tasks.steps.reading import SPANS, Spans
from tests.tenants import ENVIRON, write_tenants
from worker.bootstrap import Services, build
from worker.ledger import queries
from worker.ledger.work import Claim
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
        """The steps before Rhythm, with what is received. What is ready then is due at once, and nobody has it."""

        def handle(claim: Claim, token: str) -> list[Job]:
            jobs = self.read(token, claim, tenant=tenant)[1]
            for job in undecided(jobs):
                job.put_back(delay=timedelta(0))
            return jobs

        with self._closed(tenant):
            work(self.services, tenant, 0, handle)

    def read(self, token: str, claim: Claim, spans: Spans = SPANS, tenant: str = TENANT) -> tuple[Run, list[Job]]:
        """What the task does first with what it has claimed."""
        run = sync.begin(self.services, tenant, token, spans)
        jobs = [Job(work, claim.now) for work in claim.works]
        process.read(run, jobs)
        process.deduplicate(run, undecided(jobs))
        return run, jobs

    @contextmanager
    def _closed(self, tenant: str) -> Iterator[None]:
        """The gate is closed meanwhile, so that nothing that is ready is claimed."""
        gate = f"er:{tenant}:gate"
        before = self.services.redis.hget(gate, "closed_until")
        self.services.redis.hset(gate, "closed_until", 2**52)
        yield
        if before is None:
            self.services.redis.hdel(gate, "closed_until")
        else:
            self.services.redis.hset(gate, "closed_until", before)

    def sync(self, tenant: str = TENANT) -> None:
        """What the task does: all steps, with what is received and what is ready."""
        process.process_tenant(self.services, tenant)

    def run(self, *bodies: bytes) -> list[Event]:
        """Deliver, and do what the task does. Returns the events."""
        ids = [self.deliver(body) for body in bodies]
        self.sync()
        return [self.event(id) for id in ids]

    def event(self, id: str, tenant: str = TENANT) -> Event:
        """Where an event stands."""
        found = queries.event(self.services.redis, tenant, id)
        assert found is not None
        return found

    def due_now(self) -> None:
        """Make everything that waits due and end every lease: the clock is Redis', so the due times are moved."""
        places = [f"er:{TENANT}:due:{name}" for name in ("process", "sync")]
        with self.services.redis.pipeline() as commands:
            commands.delete(f"er:{TENANT}:slots")
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
