"""What Prometheus would scrape, by name and labels."""

from prometheus_client.parser import text_string_to_metric_families

from worker.bootstrap import Services
from worker.receiver.figures import metrics

#: A sample: its name, and its labels in order.
Sample = tuple[str, tuple[tuple[str, str], ...]]


def read(text: str) -> dict[Sample, float]:
    """Each sample of a page."""
    families = text_string_to_metric_families(text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


class Scrape:
    """One scrape of the ledger's part."""

    def __init__(self, at: Services) -> None:
        self.text = metrics(at)
        self.samples = read(self.text)

    def __call__(self, name: str, **labels: str) -> float | None:
        """A value; None when there is no such series."""
        return self.samples.get((f"examrelay_{name}", tuple(sorted(labels.items()))))
