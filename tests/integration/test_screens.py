"""On a terminal of any width nothing that matters is left out: every command, with the longest texts that there are."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.event import Event
from tasks.operator.overview import overview
from tests.commands import command, on_terminal
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from worker.ledger import strays

LONG = json.loads((Path(__file__).parent.parent / "samples" / "certiverse" / "whole.json").read_text())
#: What JSON tells and a screen spells in its own way, or leaves to other commands.
ELSEWHERE = {"at", "received_at", "due_at", "completed_at", "written_at", "seen_at", "history", "operations", "rev"}
#: What lists leave to `events show`.
OF_ONE = {"delivery", "version", "attempts", "receipts"}


def squeezed(text: object) -> str:
    """Where a line ends does not matter."""
    return "".join(str(text).split())


def values(told: Any, without: set[str]) -> list[str]:
    """Every text and number in a JSON document."""
    if isinstance(told, dict):
        return [value for name, member in told.items() if name not in without for value in values(member, without)]
    if isinstance(told, list):
        return [value for member in told for value in values(member, without)]
    return [] if told is None or isinstance(told, bool) else [str(told)]


@pytest.fixture
def events(pipeline: Pipeline) -> list[Event]:
    """A synced event, and those that stop with the longest details."""
    pipeline.rhythm.seed(
        ORG,
        [
            registration("reg-1", sys_version=4),
            *(
                registration(f"registration-of-a-long-name-{number}", student_id="stu-2", name="Ada Example-Longname")
                for number in range(5)
            ),
        ],
    )
    exam = LONG["exam"] | {"examCode": "A-LONG-CODE-OF-AN-EXAM-THAT-NOBODY-HAS-MAPPED-YET"}
    whole = LONG | {"exam": exam, "examDelivery": LONG["examDelivery"] | {"deliverableId": "dlv-whole"}}
    found = pipeline.run(
        certiverse(),
        certiverse("dlv-2", None, student="stu-2", email="b@example.org"),
        json.dumps(whole).encode(),
        b'{"examDelivery": {"deliverableId": 7, "deliveryDateTime": "never"}, "exam": [], "candidate": 1}',
    )
    found += pipeline.run(certiverse("dlv-3", "reg-1", completed="2026-05-09T00:00:00Z", score=11))
    assert len({event.reason for event in found}) == 5
    return found


@pytest.mark.parametrize("part", [0, 1])
def test_a_screen_shows_all_that_json_tells(pipeline: Pipeline, events: list[Event], part: int) -> None:
    at, config = pipeline.services, pipeline.services.settings.config
    strays.keep(at.redis, at.ledger.sealer, "names no tenant that is in the tenants file, and no source", "task", b"{}")
    at.redis.hincrby(f"er:{TENANT}:counts", "held", 1)  # the audit finds this
    pipeline.rhythm.edit(ORG, "reg-1", status="failed")  # and this
    commands = (
        ["check"],
        ["check", "--file"],
        ["audit"],
        ["events", "list"],
        ["held", "list"],
        ["dead", "list"],
        *(["events", "show", event.id] for event in events),
        ["events", "show", events[0].id, "--written"],
        ["plan", "--id", events[1].id, "--names"],
        ["plan", "--id", events[4].id],
        ["trace", "--candidate", "stu-1"],
        ["strays", "list"],
        ["settings"],
    )
    for words in commands[part::2]:
        told = json.loads(command(config, *words, "--json").stdout)
        without = ELSEWHERE if words[1:2] == ["show"] else ELSEWHERE | OF_ONE
        without |= {"state"} if words[0] in ("held", "dead") else set()
        for columns, lines in ((80, 24), (200, 50)):
            screen = on_terminal(config, *words, columns=columns, lines=lines)
            shown = squeezed(screen.replace(" · ", " "))
            missing = [value for value in values(told, without) if squeezed(value) not in shown]
            assert not missing, (words, missing, screen)


@pytest.mark.parametrize("columns", [80, 200])
def test_status_adds_up_on_its_screen(pipeline: Pipeline, events: list[Event], columns: int) -> None:
    at = pipeline.services
    told = overview(at)["tenants"][TENANT]
    assert told["accepted"] == sum(told["states"].values()) + told["pruned"] == len(events)
    screen = on_terminal(at.settings.config, "status", columns=columns)
    sum_of = " + ".join(f"{count} {what}" for what, count in [*told["states"].items(), ("pruned", 0)])
    assert f"acme: 5 accepted = {sum_of}" in screen
    for reason in (*told["held"], *told["dead"]):
        assert reason in screen


def test_what_does_not_fit_follows_below_its_row_by_name(pipeline: Pipeline, events: list[Event]) -> None:
    screen = on_terminal(pipeline.services.settings.config, "held", "list", columns=80)
    (line,) = [number for number, line in enumerate(screen.splitlines()) if line.startswith(events[1].id)]
    below = screen.splitlines()[line + 1]
    assert below.startswith("    detail equally likely: registration-of-a-long-name-0,")
    assert all(len(line) <= 80 for line in screen.splitlines())
