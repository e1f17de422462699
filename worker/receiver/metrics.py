"""What the receiver counts, for Prometheus. Labels are names from the tenants file, or empty; never from a request."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from worker.tenants import Tenants

#: The refusals that alerts watch. They are shown from the beginning: a rate has to begin with a zero.
_WATCHED = (401, 503)
#: The receiver answers within a second; a fsync takes about a millisecond.
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Measures:
    """One process' figures."""

    def __init__(self, tenants: Tenants) -> None:
        self._registry = CollectorRegistry()
        self._accepted = Counter(
            "examrelay_accepted", "Deliveries recorded.", ["tenant", "source", "duplicate"], registry=self._registry
        )
        self._refused = Counter(
            "examrelay_refused", "Requests refused.", ["tenant", "source", "status"], registry=self._registry
        )
        #: Kept, because looking up labels costs more than counting.
        self._counting: dict[tuple[str, str, bool], Counter] = {}
        #: From the complete body to the ledger's answer, refusals included.
        self.record_seconds = Histogram(
            "examrelay_record_seconds", "Recording a delivery.", buckets=_SECONDS, registry=self._registry
        )
        for tenant, rules in tenants.tenants.items():
            for source in rules.sources:
                for status in _WATCHED:
                    self._refused.labels(tenant, source, str(status))

    def accepted(self, tenant: str, source: str, duplicate: bool) -> None:
        """Count a 202."""
        names = tenant, source, duplicate
        if names not in self._counting:
            self._counting[names] = self._accepted.labels(tenant, source, str(duplicate).lower())
        self._counting[names].inc()

    def refused(self, tenant: str, source: str, status: int) -> None:
        """Count a 4xx or 5xx. `tenant` and `source` are empty when the tenants file does not have them."""
        self._refused.labels(tenant, source, str(status)).inc()

    def text(self) -> str:
        """As Prometheus scrapes it."""
        return generate_latest(self._registry).decode()
