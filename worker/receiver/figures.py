"""The ledger's figures for Prometheus, read at each scrape: every receiver shows the same. Zeros are shown, too."""

import shutil
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from importlib.resources import files
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from schemas.event import EventState, Reason
from worker.bootstrap import Services
from worker.health import stuck
from worker.ledger import misdirected, queries
from worker.ledger.client import UNAVAILABLE
from worker.ledger.durability import Look, look_at, why_refusing
from worker.ledger.processes import KINDS, processes
from worker.ledger.totals import histogram, labelled, totals
from worker.settings import running_version

_KINDS: Final = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}
_TABLE: Final = tomllib.loads((files(__package__) / "metrics.toml").read_text())
#: Every metric of the ledger: its name behind `examrelay_`, its kind, its labels, and what it says.
METRICS: Final[Mapping[str, tuple[Any, list[str], str]]] = {
    name: (_KINDS[kind], row["labels"], row["help"]) for kind, rows in _TABLE.items() for name, row in rows.items()
}
_STOPPED: Final = [(reason.policy.ends_in, reason) for reason in Reason if reason is not Reason.FORGOTTEN]
_ON_THIS_MACHINE: Final = ("127.0.0.1", "localhost", "[::1]")


class Figures:
    """One scrape."""

    def __init__(self, at: Services) -> None:
        self._at = at
        self._redis = at.redis
        self._families = {
            name: kind(f"examrelay_{name}", says, labels=labels) for name, (kind, labels, says) in METRICS.items()
        }

    def collect(self) -> Iterable[Any]:
        """Families for Prometheus; only two when Redis does not answer."""
        self._put("build_info", 1, running_version())
        try:
            self._processes()
            self._server(look_at(self._redis))
            now = queries.redis_now(self._redis)
            for tenant in sorted({*queries.tenants(self._redis), *self._at.tenants.tenants}):
                self._events(tenant, queries.counts(self._redis, tenant), now)
                self._rhythm(tenant, queries.gate(self._redis, tenant), totals(self._redis, tenant))
                self._put("stalled", stuck(self._at, tenant, now) is not None, tenant)
            swept = queries.swept_at(self._redis)
        except UNAVAILABLE:
            self._put("up", 0)
            return [self._families["build_info"], self._families["up"]]
        self._put("up", 1)
        if swept is not None:
            self._put("sweep_age_seconds", (now - swept).total_seconds())
        return [family for family in self._families.values() if family.samples]

    def _put(self, name: str, value: float, *labels: str) -> None:
        self._families[name].add_metric(labels, value)

    def _processes(self) -> None:
        running = processes(self._redis)
        for kind in KINDS:
            lives = [process.lives for process in running if process.kind == kind]
            self._put("processes", lives.count(True), kind)
            self._put("processes_silent", lives.count(False), kind)

    def _server(self, look: Look) -> None:
        """Redis itself, and what is in it for no tenant."""
        self._put("receiver_refuses", bool(why_refusing(look, self._at.settings.replicas)))
        self._put("redis_memory_bytes", look.info["used_memory"])
        self._put("redis_memory_limit_bytes", look.info.get("maxmemory", 0))
        if self._at.settings.redis.shown.rpartition(":")[0] in _ON_THIS_MACHINE:
            with suppress(OSError, KeyError):  # the folder may be out of our reach, in a container for instance
                usage = shutil.disk_usage(look.config["dir"])
                self._put("redis_disk_free_bytes", usage.free)
                self._put("redis_disk_size_bytes", usage.total)
        self._put("strays", queries.stray_count(self._redis))
        self._put("malformed", queries.malformed(self._redis))
        self._put("misdirected", misdirected.count(self._redis))

    def _events(self, tenant: str, counts: Mapping[str, int], now: datetime) -> None:
        for state in EventState:
            self._put("events", counts.get(state, 0), tenant, state)
        for state, reason in _STOPPED:
            self._put("events_stopped", counts.get(f"{state}:{reason}", 0), tenant, state, reason)
        for result in ("written", "unchanged"):
            self._put("settled", counts.get(f"synced:{result}", 0), tenant, result)
        self._put("recorded", counts.get("accepted", 0), tenant)
        for state in (one for one in EventState if not one.final):
            since = queries.oldest_due(self._redis, tenant, state)
            seconds = max(0.0, (now - since).total_seconds()) if since else 0.0
            self._put("oldest_due_seconds" if state.waiting else "oldest_stopped_seconds", seconds, tenant, state)
        for state in queries.DUE:
            for name, count in queries.waiting_reasons(self._redis, tenant, state, singly=True).items():
                self._put("events_waiting", count, tenant, state, name)

    def _rhythm(self, tenant: str, gate: Mapping[str, str], found: Mapping[str, int]) -> None:
        self._put("gate_closed", "reason" in gate, tenant)
        self._put("credentials_refused", gate.get("reason") == Reason.CREDENTIALS_REFUSED, tenant)
        if "interval" in gate:
            self._put("pace_calls_per_second", 1000 / float(gate["interval"]), tenant)
        for name in ("attempts_failed", "rhythm_calls"):
            for labels, number in labelled(found, name):
                self._put(name, number, tenant, *labels)
        self._put("lease_expiries", found.get("lease_expiries", 0), tenant)
        for name in ("rhythm_call", "synced"):
            buckets, seconds = histogram(found, name)
            self._families[f"{name}_seconds"].add_metric([tenant], buckets, seconds)


def metrics(at: Services) -> str:
    """The ledger's part of what Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(at))
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()
