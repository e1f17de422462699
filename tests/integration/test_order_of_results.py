"""Whatever order a candidate's results come in, together or apart, with a worker dying meanwhile: Rhythm ends the same.

Each permutation of a history has registrations of its own, so that one ledger and one stand-in serve them all.
EXAMRELAY_FULL=1 plays every permutation; without it a seeded sample.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from schemas.event import EventState
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from tests.stages import SENT, begun, drain, go_on
from worker.ledger.audit.books import books

#: O: original · o: the same in other bytes · R: rescore (twice: the same bytes) · t: the retake · m: not JSON.
HISTORY = "OOoRRtm"
EVERY = sorted(set(permutations(HISTORY)))
SAMPLE, GROUPS = 320, 8
#: Where a worker dies: with its claim at process, or after so many steps of sync.
CRASHES = ("process", *range(SENT + 1))
ORIGINAL, RESCORE, RETAKE = ("failed", 60), ("passed", 82.5), ("passed", 91)


def played() -> list[tuple[str, ...]]:
    return EVERY if os.environ.get("EXAMRELAY_FULL") == "1" else random.Random(7).sample(EVERY, SAMPLE)


class History:
    """One candidate's deliveries. Both sittings are found by student, exam and day; the first is named as well."""

    def __init__(self, number: int) -> None:
        self.first, self.retake = f"reg-{number}", f"reg-{number}-retake"
        self._who = {"student": f"stu-{number}", "email": f"c-{number}@example.org"}
        self._sitting = f"dlv-{number}"
        self._number = number

    def registrations(self) -> list[dict[str, Any]]:
        who = {"student_id": self._who["student"], "email_address": self._who["email"]}
        return [
            registration(self.first, exam_date="2026-05-04", **who),
            registration(self.retake, exam_date="2026-06-15", **who),
        ]

    def body(self, what: str) -> bytes:
        original = certiverse(self._sitting, self.first, passed=False, score=60, **self._who)  # type: ignore[arg-type]
        match what:
            case "O":
                return original
            case "o":
                return json.dumps(json.loads(original), indent=1).encode()
            case "R":
                return certiverse(self._sitting, self.first, score=82.5, rescore=True, **self._who)  # type: ignore[arg-type]
            case "t":
                later = "2026-06-15T09:00:00Z"
                return certiverse(f"{self._sitting}-2", None, score=91, completed=later, **self._who)  # type: ignore[arg-type]
        return b"{" + str(self._number).encode()


def oracle(batches: Sequence[Sequence[str]], split: int | None) -> list[list[tuple[str, float]]]:
    """What the first registration may say, one after the other; by the order of arrival alone.

    `split`: a batch that a worker died on at process is prepared in halves, so an original in it may be seen alone.
    """
    came = {what: min(n for n, batch in enumerate(batches) if what in batch) for what in HISTORY}
    original, rescore = min(came["O"], came["o"]), came["R"]
    possible = [[ORIGINAL, RESCORE]] if original < rescore else [[RESCORE]]
    return possible if original != rescore or original != split else [[ORIGINAL, RESCORE], [RESCORE]]


def states_of(values: list[tuple[str, float]]) -> Counter[EventState]:
    """The states of the five events, when the first registration has said `values`."""
    states = Counter({EventState.SYNCED: 2, EventState.DUPLICATE: 1, EventState.DEAD: 1})
    states[EventState.SYNCED if ORIGINAL in values else EventState.SUPERSEDED] += 1
    return states


def in_batches(history: Sequence[str], chance: random.Random) -> list[list[str]]:
    """One at a time, or cut at random."""
    if chance.random() < 0.4:
        return [[what] for what in history]
    cuts = sorted(chance.sample(range(1, len(history)), chance.randint(0, 3)))
    return [list(history[start:end]) for start, end in zip([0, *cuts], [*cuts, len(history)], strict=True)]


def play(pipeline: Pipeline, history: History, batches: list[list[str]], crash: str | int, crash_at: int) -> set[str]:
    """Deliver batch by batch; in one of them a worker dies. Returns the ids of the events."""
    ids: set[str] = set()
    for number, batch in enumerate(batches):
        ids |= {pipeline.deliver(history.body(what)) for what in batch}
        if number == crash_at:
            die(pipeline, crash)
        go_on(pipeline)
        drain(pipeline)
    return ids


def die(pipeline: Pipeline, crash: str | int) -> None:
    if crash == "process":
        pipeline.ledger.claim(TENANT, "dies", 100, 0)
        return
    begun(pipeline, int(crash), "dies")


def said(changes: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Status and score after each write."""
    values: list[tuple[str, float]] = []
    now: dict[str, Any] = {}
    for change in changes:
        now |= {name: new for name, (_, new) in change["changes"].items()}
        values.append((now["status"], now["score"]))
    return values


@pytest.mark.parametrize("group", range(GROUPS))
def test_whatever_the_order_rhythm_ends_the_same_and_never_steps_back(pipeline: Pipeline, group: int) -> None:
    mine = list(enumerate(played()))[group::GROUPS]
    for number, order in mine:
        chance, history = random.Random(number), History(number)
        batches = in_batches(order, chance)
        crash, crash_at = CRASHES[number % len(CRASHES)], chance.randrange(len(batches))
        pipeline.rhythm.seed(ORG, history.registrations())
        ids = play(pipeline, history, batches, crash, crash_at)
        case = f"{batches}, dies at {crash} in batch {crash_at}"
        values = check(pipeline, history.first, oracle(batches, crash_at if crash == "process" else None), case)
        check(pipeline, history.retake, [[RETAKE]], case)
        assert Counter(pipeline.event(id).state for id in ids) == states_of(values), case
    found = books(pipeline.services.redis, TENANT)
    assert (found.differences, found.accepted) == ((), 5 * len(mine))


def check(pipeline: Pipeline, id: str, possible: list[list[tuple[str, float]]], case: str) -> list[tuple[str, float]]:
    """What the registration said, one after the other: possible, with a letter for each change of its status."""
    record = pipeline.rhythm.record(ORG, id)
    values, now = said(record["history"]), record["registration"]
    assert values in possible, case
    assert [letter["status"] for letter in record["letters"]] == [status for status, _ in values], case
    assert (now["status"], now["score"]) == values[-1], case
    return values
