"""What Sentry gets from real processes: a local server takes the envelopes over HTTP."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.control import Sandbox
from schemas.event import EventState
from tests.acceptance.stack import Stack, stack_at
from tests.acceptance.watching import Collector, collecting
from tests.marked import MARK, SCORE, marked, theirs
from tests.pipeline import ORG
from tests.running import wait_until
from worker.settings import running_version


@pytest.fixture
def sentry() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture
def traced(rhythm: Sandbox, sentry: Collector, tmp_path: Path) -> Iterator[Stack]:
    """All processes, with every trace."""
    asked = {"SENTRY_DSN": sentry.dsn, "SENTRY_ENVIRONMENT": "a test", "SENTRY_TRACES_SAMPLE_RATE": "1"}
    with stack_at(tmp_path, rhythm, EXAMRELAY_SWEEP_SECONDS="1", **asked) as running:
        yield running


def test_a_person_who_reads_sentry_sees_what_waits_the_way_to_rhythm_and_that_sweeps_run(
    traced: Stack, sentry: Collector, rhythm: Sandbox
) -> None:
    rhythm.seed(ORG, [theirs(1)])
    traced.start("web", "worker", "sweeper", "beat")
    (written,) = traced.deliver([marked(1)])
    traced.synced(1)
    (unknown,) = traced.deliver([marked(2, exam="CERT-9")])
    wait_until(lambda: traced.event(unknown).state is EventState.HELD)
    (broken,) = traced.deliver([f"{MARK} is no JSON".encode()])
    wait_until(lambda: traced.event(broken).state is EventState.DEAD)
    traced.deliver([marked(3, exam="CERT-9")])
    wait_until(lambda: traced.counts().get("held") == 2)

    messages = wait_until(lambda: len(sentry.items("event")) > 1 and sentry.items("event"), 20, "both messages")
    told = {event["tags"]["reason"]: event for event in messages}
    assert len(messages) == len(told) == 2
    held = told["unknown_exam"]
    assert held["tags"] == {
        "process": "worker",
        "tenant": "acme",
        "source": "certiverse",
        "state": "held",
        "reason": "unknown_exam",
        "stage": "consider",
        "event_id": unknown,
    }
    assert (held["release"], held["environment"]) == (f"examrelay@{running_version()}", "a test")
    assert held["fingerprint"] == ["stopped", "held", "unknown_exam"]
    assert told["invalid_json"]["tags"]["event_id"] == broken

    check_in = wait_until(lambda: sentry.items("check_in"), 20, "a sweep's check-in")[0]
    assert (check_in["monitor_slug"], check_in["status"]) == ("examrelay-sweep", "ok")
    assert check_in["monitor_config"]["schedule"] == {"type": "interval", "value": 1, "unit": "minute"}

    def ways() -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """The receiver's and the worker's part of each trace that has both."""
        found = {(one["transaction"], one["contexts"]["trace"]["trace_id"]): one for one in sentry.items("transaction")}
        ids = [id for name, id in found if name == "receiver" and ("batch", id) in found]
        return [(found["receiver", id], found["batch", id]) for id in ids]

    wait_until(lambda: len(ways()) == 4, 20, "every trace")
    (way,) = [one for one in ways() if one[1]["spans"]]
    receiver, batch = way
    assert batch["contexts"]["trace"]["parent_span_id"] == receiver["contexts"]["trace"]["span_id"]
    assert [(span["op"], span["description"]) for span in batch["spans"]] == [
        ("http.client", "read"),
        ("http.client", "patch"),
    ]
    assert receiver["tags"] | {"process": ""} == {"process": "", "tenant": "acme", "source": "certiverse"}
    assert len(sentry.items("check_in")) == 1, "not one for each sweep"
    traced.end("worker", signal.SIGTERM)  # what is still to be sent is sent
    assert len(sentry.items("event")) == 2, "one a reason, whatever the number of events"

    for personal in (MARK, str(SCORE), "example.org"):
        assert personal.encode() not in b"".join(sentry.received)
    assert traced.event(written).state is EventState.SYNCED


def test_without_being_asked_for_there_is_no_trace(traced: Stack, sentry: Collector) -> None:
    del traced.environ["SENTRY_TRACES_SAMPLE_RATE"]
    traced.start("web", "worker")
    traced.deliver([b"no JSON"])
    wait_until(lambda: sentry.items("event"), 20, "the message")
    traced.deliver([b"no JSON, too"])
    wait_until(lambda: traced.counts().get("dead") == 2)
    for name in list(traced.running):
        traced.end(name, signal.SIGTERM)  # what is still to be sent is sent
    assert [kind for kind, _ in sentry.all()] == ["event"]
