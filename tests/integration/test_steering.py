"""What an operator does with held and dead events, by the real command: find, watch, replay, discard."""

import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from subprocess import CompletedProcess

import pytest

from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from tasks.operator import listing
from tests.commands import command, on_terminal, started
from tests.events import certiverse, registration
from tests.pipeline import ORG, Pipeline
from worker.ledger.audit.books import books

Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def run(pipeline: Pipeline) -> Run:
    return lambda *arguments: command(pipeline.services.settings.config, *arguments)


def held(pipeline: Pipeline, count: int, begin: int = 0) -> list[Event]:
    """Events held as `unknown_exam`, the oldest first."""
    numbers = range(begin, begin + count)
    return [pipeline.run(certiverse(f"dlv-{number}", exam=f"NEW-{number}"))[0] for number in numbers]


def test_what_waits_is_grouped_by_reason_and_cause_first(pipeline: Pipeline, run: Run) -> None:
    pipeline.rhythm.seed(ORG, [registration("reg-a"), registration("reg-b"), registration("reg-c", exam_id="exam-2")])
    pipeline.run(
        *(certiverse(f"dlv-1{number}", exam="NEW") for number in range(3)),
        certiverse("dlv-2", exam="OLD"),
        *(certiverse(f"dlv-3{number}", None) for number in range(2)),
        certiverse("dlv-4", "reg-c"),
    )
    told = json.loads(run("held", "list", "--json", "--limit", "1").stdout)
    assert told["reasons"] == {"unknown_exam": 4, "registration_ambiguous": 2, "registration_mismatch": 1}
    causes = [(one["events"], one["reason"], one["cause"]) for one in told["causes"]]
    assert causes[:2] == [
        (3, "unknown_exam", "not in the exam map: NEW, form-a"),
        (2, "registration_ambiguous", "equally likely: …"),
    ]
    assert set(causes[2:]) == {
        (1, "unknown_exam", "not in the exam map: OLD, form-a"),
        (1, "registration_mismatch", "registration … is for exam exam-2, the result for exam-1"),
    }
    assert len(told["events"]) == 1
    first = run("held", "list").stdout.splitlines()[:2]
    assert first == ["events\treason\tcause", "3\tunknown_exam\tnot in the exam map: NEW, form-a"]


@pytest.mark.parametrize(
    ("detail", "cause"),
    [
        ("not JSON: EOF while parsing a string at line 1 column 664", "not JSON: EOF while parsing a string at line …"),
        ("differs from another result: evt_abc, evt_d2", "differs from another result: …, …"),
        ("registration reg-1 has another result already", "registration … has another result already"),
        ("this delivery was written to reg|1 before", "this delivery was written to … before"),
        ("its ids name several registrations: reg-1, reg-2", "its ids name several registrations: …"),
        ("examResult.passFail: missing", "examResult.passFail: missing"),
    ],
)
def test_a_cause_is_a_detail_without_what_is_one_events_own(detail: str, cause: str) -> None:
    at = datetime(2026, 5, 4, tzinfo=UTC)
    event = Event(id="evt_1", tenant="acme", source=Source.PROV, state=EventState.DEAD, received_at=at, detail=detail)
    assert listing.cause(event) == cause


def test_a_sweep_from_cron_that_did_nothing_says_nothing(pipeline: Pipeline, run: Run) -> None:
    done = run("sweep")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pipeline.deliver(certiverse())
    pipeline.services.redis.delete("er:acme:hint")
    assert run("sweep").stdout == "1 hinted, 0 pruned\n"


def test_a_replay_says_how_many_first_and_records_who_when_and_why(pipeline: Pipeline, run: Run) -> None:
    (event,) = held(pipeline, 1)
    done = run("replay", "--reason", "unknown_exam", "--yes", "--why", "the map\tis right\nnow")
    assert (done.returncode, done.stdout.splitlines()) == (0, ["1 event to replay", "1 replayed"])
    entry = pipeline.event(event.id).history[-1]
    assert (entry.move, entry.by, entry.reason) == ("replay", "operator:ann", "the map is right now")
    assert pipeline.event(event.id).state is EventState.RECEIVED


def test_a_discard_is_recorded_and_kept_when_the_event_is_folded_up(pipeline: Pipeline, run: Run) -> None:
    (event,) = held(pipeline, 1)
    done = run("discard", "--id", event.id, "--why", "sent by mistake", "--yes")
    assert done.returncode == 0
    kept = pipeline.event(event.id)
    assert (kept.state, kept.detail) == (EventState.DISCARDED, "sent by mistake")
    assert (kept.history[-1].move, kept.history[-1].by, kept.history[-1].reason) == (
        "discard",
        "operator:ann",
        "sent by mistake",
    )


def test_without_yes_in_a_pipe_nothing_is_done(pipeline: Pipeline, run: Run) -> None:
    held(pipeline, 2)
    done = run("replay", "--tenant", "acme")
    assert done.returncode == 2
    assert done.stdout == "2 events to replay\n"
    assert "nothing was done: add --yes" in done.stderr
    assert books(pipeline.services.redis, "acme").differences == ()


@pytest.mark.parametrize(("answer", "state"), [("n\n", EventState.HELD), ("y\n", EventState.RECEIVED)])
def test_on_a_terminal_it_asks(pipeline: Pipeline, answer: str, state: EventState) -> None:
    (event,) = held(pipeline, 1)
    shown = on_terminal(pipeline.services.settings.config, "replay", "--id", event.id, answer=answer)
    assert "1 event to replay" in shown
    assert "replay them?" in shown
    assert pipeline.event(event.id).state is state


def test_a_limit_takes_the_oldest(pipeline: Pipeline, run: Run) -> None:
    events = held(pipeline, 3)
    assert run("replay", "--reason", "unknown_exam", "--limit", "2", "--yes").returncode == 0
    states = [pipeline.event(event.id).state for event in events]
    assert states == [EventState.RECEIVED, EventState.RECEIVED, EventState.HELD]


def test_a_time_range_takes_what_was_received_in_it(pipeline: Pipeline, run: Run) -> None:
    events = held(pipeline, 2)
    later = events[1].received_at.isoformat().replace("+00:00", "")
    pipeline.services.redis.zadd("er:acme:events", {events[0].id: 1})
    pipeline.services.redis.hset(f"er:acme:event:{events[0].id}", "received_at", 1)
    assert run("discard", "--until", later[:10], "--why", "old", "--yes").stdout.startswith("1 event to discard")
    assert [pipeline.event(event.id).state for event in events] == [EventState.DISCARDED, EventState.HELD]


def test_it_stops_at_the_first_that_needs_an_answer_unless_told_to_go_on(pipeline: Pipeline, run: Run) -> None:
    pipeline.rhythm.seed(ORG, [registration("reg-a"), registration("reg-b")])
    (ambiguous,) = pipeline.run(certiverse("dlv-x", registration=None))
    assert ambiguous.reason is Reason.REGISTRATION_AMBIGUOUS
    (other,) = held(pipeline, 1)
    refused = run("replay", "--state", "held", "--yes")
    assert refused.returncode == 1
    assert "equally likely: reg-a, reg-b): it needs --registration REG" in refused.stderr
    assert "nothing was done: 1 cannot be moved so. --keep-going replays the others" in refused.stderr
    assert pipeline.event(other.id).state is EventState.HELD
    done = run("replay", "--state", "held", "--yes", "--keep-going")
    assert done.returncode == 1, "not all were moved"
    assert pipeline.event(other.id).state is EventState.RECEIVED
    assert pipeline.event(ambiguous.id).state is EventState.HELD


@pytest.mark.parametrize(("option", "moved"), [((), 1), (("--keep-going",), 2)], ids=["stops", "goes on"])
def test_what_has_moved_meanwhile_stops_it_unless_told_to_go_on(
    pipeline: Pipeline, option: tuple[str, ...], moved: int
) -> None:
    """Between the count and the answer another operator discards the second of three."""
    events = held(pipeline, 3)
    shown = on_terminal(
        pipeline.services.settings.config,
        "replay",
        "--reason",
        "unknown_exam",
        *option,
        answer="y\n",
        meanwhile=lambda: pipeline.ledger.discard("acme", events[1].id, "bob", "first"),
    )
    assert "3 events to replay" in shown
    assert f"{events[1].id} was not moved: it is discarded" in shown
    assert f"{moved} replayed, {3 - moved} not" in shown
    states = [pipeline.event(event.id).state for event in events]
    third = EventState.RECEIVED if option else EventState.HELD
    assert states == [EventState.RECEIVED, EventState.DISCARDED, third]


def test_a_watcher_sees_each_event_again_when_it_moves(pipeline: Pipeline) -> None:
    config = pipeline.services.settings.config
    (first,) = held(pipeline, 1)
    process = started(config, "events", "list", "--follow", "--json", "--state", "held")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["id"] == first.id
    (second,) = held(pipeline, 1, begin=1)
    told = json.loads(process.stdout.readline())
    assert (told["id"], told["reason"]) == (second.id, "unknown_exam")
    pipeline.ledger.replay("acme", first.id, "op", {})
    pipeline.process()
    pipeline.sync()
    (third,) = held(pipeline, 1, begin=2)
    assert json.loads(process.stdout.readline())["id"] == third.id
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=40)
    assert (process.returncode, out, err) == (0, "", "")
