"""What an operator does with held and dead events, by the real command: find, watch, replay, discard."""

import json
import signal
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from schemas.event import Event, EventState, Reason
from tests.commands import command, on_terminal, started
from tests.events import certiverse, registration
from tests.pipeline import ORG, Pipeline
from worker.ledger.audit import books

Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def run(pipeline: Pipeline) -> Run:
    return lambda *arguments: command(pipeline.services.settings.config, *arguments)


def held(pipeline: Pipeline, count: int, begin: int = 0) -> list[Event]:
    """Events held as `unknown_exam`, the oldest first."""
    numbers = range(begin, begin + count)
    return [pipeline.run(certiverse(f"dlv-{number}", exam=f"NEW-{number}"))[0] for number in numbers]


def test_a_replay_says_how_many_first_and_records_who_when_and_why(pipeline: Pipeline, run: Run) -> None:
    (event,) = held(pipeline, 1)
    done = run("replay", "--reason", "unknown_exam", "--yes", "--why", "the map\tis right\nnow")
    assert (done.returncode, done.stdout.splitlines()) == (0, ["1 event to replay", "1 done"])
    entry = pipeline.event(event.id).history[-1]
    assert (entry.move, entry.by, entry.reason) == ("replay", "ann", "the map is right now")
    assert pipeline.event(event.id).state is EventState.RECEIVED


def test_a_discard_is_recorded_and_kept_when_the_event_is_folded_up(pipeline: Pipeline, run: Run) -> None:
    (event,) = held(pipeline, 1)
    done = run("discard", "--id", event.id, "--why", "sent by mistake", "--yes")
    assert done.returncode == 0
    kept = pipeline.event(event.id)
    assert (kept.state, kept.detail) == (EventState.DISCARDED, "sent by mistake")
    assert (kept.history[-1].move, kept.history[-1].by, kept.history[-1].reason) == (
        "discard",
        "ann",
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
    assert "nothing was done: 1 of 2 need an answer. --keep-going replays the others" in refused.stderr
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
        pipeline.services.settings.config, "replay", "--reason", "unknown_exam", *option, answer="y\n",
        meanwhile=lambda: pipeline.ledger.discard("acme", events[1].id, "bob", "first"),
    )  # fmt: skip
    assert "3 events to replay" in shown
    assert f"{events[1].id} was not moved: it is discarded by now" in shown
    assert f"{moved} done, {3 - moved} not" in shown
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
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")
