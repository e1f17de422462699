"""The alert rules name metrics that exist, and docs/operations.md has each alert."""

import re
import shutil
import subprocess

import pytest

from tests.events import certiverse
from tests.pipeline import Pipeline
from tests.running import ROOT
from worker.receiver.figures import metrics
from worker.receiver.metrics import Measures

RULES = ROOT / "deploy" / "alerts.yml"
NAMES = re.findall(r"- alert: (\w+)", RULES.read_text())
EXPRESSIONS = " ".join(re.findall(r"expr: (.*)", RULES.read_text()))


def test_each_alert_is_on_the_operators_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert len(NAMES) == len(set(NAMES)) >= 8
    assert [name for name in NAMES if f"alert `{name}`" not in page] == []


def test_each_figure_that_an_alert_is_about_is_at_the_receiver(pipeline: Pipeline) -> None:
    pipeline.run(b"not JSON", certiverse())
    pipeline.services.redis.hset("er:sweep", "at", 0)
    receiver = Measures(pipeline.services.tenants)
    receiver.refused("acme", "certiverse", 503)
    told = metrics(pipeline.services) + receiver.text()
    wanted = set(re.findall(r"examrelay_\w+", EXPRESSIONS))
    assert {name for name in wanted if not re.search(rf"^{name}[{{ ]", told, re.MULTILINE)} == set()
    labels = set(re.findall(r"(\w+)!?=\"", EXPRESSIONS)) | set(re.findall(r"\$labels\.(\w+)", RULES.read_text()))
    assert {label for label in labels if f'{label}="' not in told} == set()


@pytest.mark.external
@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_prometheus_takes_the_rules() -> None:
    subprocess.run(["promtool", "check", "rules", RULES], check=True)
