"""The one place where a process is put together. Nothing connects on import."""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import redis

from worker.ledger.client import connect
from worker.ledger.events import Ledger
from worker.ledger.gate import Gate
from worker.ledger.identity import Identity, load_identity
from worker.ledger.tokens import RedisTokens
from worker.ledger.totals import Totals
from worker.settings import Settings, load_settings
from worker.tenants import Tenant, Tenants

if TYPE_CHECKING:
    import requests

    from worker.rhythm.client import Rhythm


@dataclass(frozen=True)
class Services:
    """What a process works with."""

    settings: Settings
    redis: "redis.Redis"
    ledger: Ledger
    #: For `tasks/steps/exam_search.py`. A process's own experience.
    search_costs: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    #: What was counted and is not in the ledger yet, by tenant.
    totals: dict[str, Totals] = field(default_factory=dict)

    @cached_property
    def session(self) -> "requests.Session":
        """To all Rhythms. Opened at the first call: the receiver and most commands call none and import no client."""
        from worker.rhythm.transport import open_session

        return open_session()

    @property
    def tenants(self) -> Tenants:
        """The tenants file."""
        return self.settings.tenants

    @cached_property
    def identity(self) -> Identity:
        """Gives candidate data its name in the ledger. Raises ConfigurationError when the index key is another."""
        return load_identity(self.redis, self.settings.identity_key, self.ledger.sealer)

    @cached_property
    def tokens(self) -> RedisTokens:
        """OAuth tokens, shared by all processes."""
        return RedisTokens(self.redis, self.ledger.scripts, self.ledger.sealer)

    def gate(self, tenant: str) -> Gate:
        """The tenant's gate."""
        return Gate(self.ledger.scripts, tenant, self.tenants[tenant].rhythm.calls_per_second)

    def rhythm(self, tenant: Tenant, gate: Gate) -> "Rhythm":
        """The tenant's Rhythm, every call through `gate` and counted. A command's calls are not saved."""
        from worker import sentry
        from worker.rhythm.client import Rhythm

        def ended(call: str, status: int | None, seconds: float) -> None:
            self.totals.setdefault(gate.tenant, Totals()).call(call, status, seconds)
            sentry.called(call, status, seconds)

        return Rhythm(tenant.rhythm, self.session, gate.take, self.tokens, ended=ended)

    def save_totals(self) -> None:
        """What was counted outside of a batch goes to the ledger."""
        while self.totals:
            tenant, totals = self.totals.popitem()
            self.ledger.apply(tenant, "", (), totals=totals)

    def close(self) -> None:
        """Give back connections."""
        if "session" in vars(self):
            self.session.close()
        self.redis.close()


def build(settings: Settings, *, patient: bool = True) -> Services:
    """Services from settings. Raises ConfigurationError for a tenants file that is wrong."""
    assert settings.tenants  # read now, so that a mistake shows here
    client = connect(settings, patient=patient)
    payload, stopped = timedelta(days=settings.payload_days), timedelta(days=settings.stopped_days or 0)
    ledger = Ledger(client, timedelta(seconds=settings.lease_seconds), settings.sealing_keys, payload, stopped)
    return Services(settings, client, ledger)


_built: dict[int, Services] = {}


def services() -> Services:
    """This process's services, built at first use: after a fork each child has its own."""
    pid = os.getpid()
    if pid not in _built:
        _built.clear()
        _built[pid] = build(load_settings())
    return _built[pid]
