"""What `/metrics` shows of the ledger and of what workers do, who have no HTTP port."""

import json
import re
from datetime import timedelta

import pytest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from schemas.event import EventState, Reason
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from tests.running import ROOT
from tests.scrape import Scrape, read
from worker.ledger import strays
from worker.ledger.totals import BOUNDS
from worker.receiver.figures import METRICS
from worker.receiver.metrics import Measures
from worker.settings import running_version


def scrape(pipeline: Pipeline) -> Scrape:
    return Scrape(pipeline.services)


def test_a_ledger_without_events_shows_zeros_for_each_tenant_of_the_file(pipeline: Pipeline) -> None:
    page = scrape(pipeline)
    assert page("build_info", version=running_version()) == 1
    assert page("up") == 1
    for state in EventState:
        assert page("events", tenant=TENANT, state=state) == 0
    for reason in set(Reason) - {Reason.FORGOTTEN}:
        assert page("events_stopped", tenant=TENANT, state=reason.policy.ends_in, reason=reason) == 0
    for name in ("gate_closed", "credentials_refused", "stalled", "recorded_total", "lease_expiries_total"):
        assert page(name, tenant=TENANT) == 0, name
    assert page("synced_seconds_count", tenant=TENANT) == 0
    assert page("strays") == page("malformed") == page("processes", kind="worker") == 0
    assert page("redis_memory_bytes") > 0  # type: ignore[operator]
    assert page("redis_disk_free_bytes") > 0  # type: ignore[operator]


def test_a_written_result_is_counted_with_its_calls_and_its_time(open_one: Pipeline) -> None:
    open_one.run(certiverse())
    page = scrape(open_one)
    assert page("recorded_total", tenant=TENANT) == 1
    assert page("settled_total", tenant=TENANT, result="written") == 1
    assert page("settled_total", tenant=TENANT, result="unchanged") == 0
    for call in ("read", "patch"):
        assert page("rhythm_calls_total", tenant=TENANT, call=call, status="200") == 1
    assert page("rhythm_call_seconds_count", tenant=TENANT) == 2
    assert page("synced_seconds_count", tenant=TENANT) == 1
    assert 0 < page("synced_seconds_sum", tenant=TENANT) < 5  # type: ignore[operator]
    found = [page("synced_seconds_bucket", tenant=TENANT, le=str(bound)) for bound in BOUNDS["synced"]]
    assert None not in found
    assert found == sorted(found, key=float), "each bucket holds those before it"  # type: ignore[arg-type]
    assert page("synced_seconds_bucket", tenant=TENANT, le="+Inf") == 1


def test_what_fails_is_counted_by_reason_and_status(open_one: Pipeline) -> None:
    open_one.rhythm.fault("status", kind="patch", status=503)
    open_one.run(certiverse())
    page = scrape(open_one)
    assert page("rhythm_calls_total", tenant=TENANT, call="patch", status="503") == 1
    assert page("attempts_failed_total", tenant=TENANT, reason="rhythm_unavailable") == 1
    assert page("events_waiting", tenant=TENANT, state="ready", reason="rhythm_unavailable") == 1
    assert page("gate_closed", tenant=TENANT) == 0
    assert page("synced_seconds_count", tenant=TENANT) == 0


def test_the_gate_has_one_series_whatever_closes_it(open_one: Pipeline) -> None:
    gate = open_one.services.gate(TENANT)
    series = {sample for sample in scrape(open_one).samples if "gate" in sample[0] or "credentials" in sample[0]}
    for reason in (Reason.RHYTHM_UNAVAILABLE, Reason.CREDENTIALS_REFUSED):
        gate.close(reason, timedelta(seconds=60))
        page = scrape(open_one)
        assert page("gate_closed", tenant=TENANT) == 1
        assert page("credentials_refused", tenant=TENANT) == (reason is Reason.CREDENTIALS_REFUSED)
        assert {sample for sample in page.samples if "gate" in sample[0] or "credentials" in sample[0]} == series


def test_what_waits_and_for_how_long(open_one: Pipeline) -> None:
    redis = open_one.services.redis
    (held,) = open_one.run(certiverse(exam="CERT-9"))
    received = open_one.deliver(certiverse("dlv-2"))
    redis.zincrby(f"er:{TENANT}:held", -7_200_000, held.id)
    redis.zincrby(f"er:{TENANT}:due:process", -600_000, received)
    page = scrape(open_one)
    assert page("events_stopped", tenant=TENANT, state="held", reason="unknown_exam") == 1
    assert page("oldest_stopped_seconds", tenant=TENANT, state="held") == pytest.approx(7200, abs=60)
    assert page("oldest_due_seconds", tenant=TENANT, state="received") == pytest.approx(600, abs=60)
    assert page("oldest_due_seconds", tenant=TENANT, state="ready") == 0


def test_a_lease_that_expires_and_a_stray_are_counted(pipeline: Pipeline) -> None:
    pipeline.deliver(certiverse())
    pipeline.ledger.claim(TENANT, "one", 1, 0)
    pipeline.due_now()
    pipeline.ledger.claim(TENANT, "two", 1, 0)
    strays.keep(pipeline.services.redis, pipeline.ledger.sealer, "no such tenant", "id", b"content")
    page = scrape(pipeline)
    assert page("lease_expiries_total", tenant=TENANT) == 1
    assert (page("strays"), page("malformed")) == (1, 0)


def test_a_pace_and_the_calls_of_a_command_are_shown(open_one: Pipeline) -> None:
    services = open_one.services
    gate = services.gate(TENANT)
    gate.calls_per_second = 4
    assert scrape(open_one)("pace_calls_per_second", tenant=TENANT) is None
    services.rhythm(services.tenants[TENANT], gate).get("reg-1")
    assert scrape(open_one)("rhythm_calls_total", tenant=TENANT, call="read", status="200") is None
    services.save_totals()
    page = scrape(open_one)
    assert page("rhythm_calls_total", tenant=TENANT, call="read", status="200") == 1
    assert page("pace_calls_per_second", tenant=TENANT) == pytest.approx(4)


def test_counting_costs_a_batch_a_few_commands(open_one: Pipeline) -> None:
    """A hundred events in one batch: the same names as one event, so that an event costs nothing to speak of."""
    open_one.rhythm.seed(ORG, [registration(f"reg-{n}", student_id=f"stu-{n}") for n in range(100)])
    for n in range(100):
        open_one.deliver(certiverse(f"dlv-{n}", f"reg-{n}", student=f"stu-{n}"))
    open_one.sync()
    names = open_one.services.redis.hlen(f"er:{TENANT}:totals")
    assert scrape(open_one)("synced_seconds_count", tenant=TENANT) == 100
    assert names <= 10


def test_names_units_and_help_are_as_prometheus_wants_them(open_one: Pipeline) -> None:
    open_one.run(certiverse())
    page = scrape(open_one).text + Measures(open_one.services.tenants).text()
    for family in text_string_to_metric_families(page):
        assert family.documentation, family.name
        if family.name.startswith("examrelay_"):
            assert family.documentation[0].isupper(), family.name
            assert family.documentation.endswith("."), family.name
        totals = [sample.name for sample in family.samples if sample.name.endswith("_total")]
        assert not family.samples or bool(totals) == (family.type == "counter"), family.name
        assert not re.search(r"_(ms|milliseconds|minutes|hours|kb|mb|percent)(_|$)", family.name)
        for sample in family.samples:
            assert not {"registration", "id", "event", "path", "email"} & sample.labels.keys()
    assert "process_resident_memory_bytes " in page
    assert "process_cpu_seconds_total " in page


def test_without_redis_it_says_so(pipeline: Pipeline) -> None:
    pipeline.services.redis.set("er:processes", "no hash")
    page = scrape(pipeline)
    assert page("up") == 0
    assert page("processes", kind="worker") is None


def test_the_dashboard_asks_for_what_there_is(open_one: Pipeline) -> None:
    open_one.run(certiverse(), certiverse("dlv-2", exam="CERT-9"))
    measures = Measures(open_one.services.tenants)
    measures.accepted(TENANT, "certiverse", duplicate=False)
    page = read(scrape(open_one).text + measures.text())
    endings = {CounterMetricFamily: "_total", HistogramMetricFamily: "_bucket"}
    labels = {f"examrelay_{name}{endings.get(kind, '')}": {*found} for name, (kind, found, _) in METRICS.items()}
    for name, found in page:
        labels.setdefault(name, set()).update(label for label, _ in found)
    dashboard = json.loads((ROOT / "deploy" / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) > 25
    for query in queries:
        asked = re.findall(r"\b((?:examrelay|process)_\w+)(?:\{([^}]*)\})?", query)
        assert asked, query
        for name, filters in asked:
            assert name in labels, query
            kinds = set(re.findall(r"(\w+)=~?\"", filters)) | set(re.findall(r"by \((\w+)\)", query))
            assert kinds <= labels[name], query
    legends = [target["legendFormat"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert all(legends)
    shown = set(re.findall(r"\bexamrelay_\w+", " ".join(queries)))
    left_out = {name for name in METRICS if not any(one.startswith(f"examrelay_{name}") for one in shown)}
    assert left_out == set(), "each metric is on the dashboard"
