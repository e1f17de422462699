"""What a person sees on a terminal of 80 columns and 24 lines."""

import re

import pytest

from schemas.event import EventState, Reason
from tests.commands import command, on_terminal
from tests.events import certiverse, registration
from tests.pipeline import ORG, Pipeline


@pytest.fixture
def busy(pipeline: Pipeline) -> Pipeline:
    """A ledger with events in many states."""
    pipeline.rhythm.seed(ORG, [registration("reg-a"), registration("reg-b"), registration("reg-c")])
    pipeline.run(
        certiverse("dlv-1", "reg-a"),
        certiverse("dlv-2", exam="NEW"),
        certiverse("dlv-3", registration=None),
        certiverse("dlv-4", "reg-c", passed=None),
        certiverse("dlv-5", "reg-b", termination="proctor"),
        b"no JSON",
        b"{}",
    )
    pipeline.deliver(certiverse("dlv-6", "reg-c"))
    return pipeline


def test_status_is_one_screen_and_says_what_to_type_next(busy: Pipeline) -> None:
    shown = on_terminal(busy.services.settings.config, "status")
    lines = shown.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert "…" not in shown
    for told in ("oldest due", "registration_ambiguous", "invalid_payload", "no worker is running: examrelay up"):
        assert told in shown
    counts = busy.services.redis.hgetall("er:acme:counts")
    assert f"{int(counts[b'held'])} wait for an answer: examrelay held list" in shown
    assert f"{int(counts[b'dead'])} will not go through as they are: examrelay dead list" in shown


@pytest.mark.parametrize("listing", [("events", "list"), ("held", "list"), ("dead", "list")])
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_an_id_is_never_cut_so_that_it_can_be_copied(busy: Pipeline, listing: tuple[str, str], columns: int) -> None:
    shown = on_terminal(busy.services.settings.config, *listing, columns=columns)
    state = listing[0].removesuffix("s") if listing[0] != "events" else None
    ids = [id.decode() for id in busy.services.redis.zrange(f"er:acme:{state or 'events'}", 0, -1)]
    assert ids
    assert [id for id in ids if id not in shown] == []
    assert max(map(len, shown.splitlines()[:-3])) <= columns


def test_an_event_says_what_to_type_next(busy: Pipeline) -> None:
    ids = busy.services.redis.zrange("er:acme:held", 0, -1)
    shown: dict[Reason | None, str] = {}
    for id in map(bytes.decode, ids):
        event = busy.event(id)
        assert event.state is EventState.HELD
        shown[event.reason] = on_terminal(busy.services.settings.config, "events", "show", id)
        assert f"examrelay plan --id {id}" in shown[event.reason]
        assert f"examrelay discard --id {id} --why" in shown[event.reason]
    for reason, answer in {
        "registration_ambiguous": " --registration REG",
        "result_unscored": " --verdict passed",
        "integrity_review": " --accept integrity_review",
        "unknown_exam": "",
    }.items():
        (line,) = (line for line in shown[Reason(reason)].splitlines() if line.startswith("again:"))
        assert re.fullmatch(rf"again: examrelay replay --id evt_\w+{answer}", line)


def test_a_pipe_gets_tab_separated_lines_and_nothing_else(busy: Pipeline) -> None:
    done = command(busy.services.settings.config, "events", "list")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert {len(line) for line in lines} == {8}
    assert lines[0][:3] == ["id", "state", "reason or result"]
    assert len(lines) == 1 + int(busy.services.redis.zcard("er:acme:events"))
    assert done.stderr == ""
