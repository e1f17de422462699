"""One log line for each event at the end of its way through a task: its name says what became of the event."""

import json

from structlog.testing import capture_logs

from tests.events import certiverse
from tests.pipeline import Pipeline


def lines(pipeline: Pipeline, *bodies: bytes) -> dict[str, dict[str, str]]:
    """The line of each event that was delivered, by its id."""
    ids = [pipeline.deliver(body) for body in bodies]
    with capture_logs() as logs:
        pipeline.sync()
    found = [line for line in logs if "event_id" in line]
    assert sorted(line["event_id"] for line in found) == sorted(ids), "one line for each"
    return {line["event_id"]: line for line in found}


def told(found: dict[str, dict[str, str]]) -> list[tuple[str, str, str | None]]:
    return sorted((line["event"], line["log_level"], line.get("reason")) for line in found.values())


def test_each_end_has_its_own_name_and_level(open_one: Pipeline) -> None:
    same = certiverse()
    assert told(lines(open_one, same)) == [("event.settled", "debug", None)]
    assert told(lines(open_one, json.dumps(json.loads(same) | {"extra": 1}).encode())) == [
        ("event.dropped", "debug", None)
    ]
    assert told(lines(open_one, certiverse("dlv-2", exam="CERT-9"), b"no JSON")) == [
        ("event.buried", "warning", "invalid_json"),
        ("event.held", "warning", "unknown_exam"),
    ]
    (missing,) = lines(open_one, certiverse("dlv-3", "reg-9", student="stu-9", email="x@example.org")).values()
    assert (missing["event"], missing["reason"], missing["stage"]) == (
        "attempt.failed",
        "registration_not_found",
        "resolve",
    )


def test_what_is_only_put_back_is_no_failed_attempt(open_one: Pipeline) -> None:
    open_one.rhythm.fault("status", status=503, times=None)
    found = lines(open_one, certiverse(), certiverse("dlv-2", "reg-2"))
    assert told(found) == [("event.put_back", "info", "rhythm_unavailable")] * 2
