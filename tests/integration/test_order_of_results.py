"""Whatever order a candidate's results come in, together or apart, with workers dying meanwhile: Rhythm ends the same.

Each play has registrations of its own, so that one ledger serves them all. With EXAMRELAY_FULL=1 (`make sweeps`) every
permutation is played in each grouping, and workers die at every boundary of their calls; else a seeded sample of these.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, permutations
from typing import Any

import pytest

from schemas.event import EventState
from tests.events import certiverse, registration
from tests.mortal import MortalWorker
from tests.pipeline import ORG, TENANT, Pipeline
from tests.stages import accepted, drain, said, states
from worker.bootstrap import build
from worker.ledger.audit.books import books

#: O: original · o: the same in other bytes · R: rescore (twice: the same bytes) · t: the retake · m: not JSON.
HISTORY = "OOoRRtm"
EVERY = sorted(set(permutations(HISTORY)))
FULL = os.environ.get("EXAMRELAY_FULL") == "1"
SAMPLE, GROUPS = 252, 4
#: What is there when a worker looks: all of it, one part and then the other, or one delivery at a time.
GROUPINGS = ("together", "in two", "alone")
#: Calls to Redis and Rhythm that a batch takes. By the first, the task has claimed and leased its events.
MOST_CALLS, CLAIMED = 12, 1
ORIGINAL, RESCORE, RETAKE = ("failed", 60), ("passed", 82.5), ("passed", 91)
Order = Sequence[str]


def played(group: int, chance: random.Random) -> Iterator[tuple[Order, Iterable[int]]]:
    """Permutations, and after how many calls the worker of each batch dies: after one, after two, and so on."""
    if FULL:
        yield from ((order, count(1)) for order in EVERY[group::GROUPS])
        return
    for number, order in enumerate(chance.sample(EVERY, SAMPLE // GROUPS // len(GROUPINGS))):
        yield order, [1 + number % (MOST_CALLS - 1)]


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


def oracle(batches: Sequence[Order], halved: bool) -> list[list[tuple[str, float]]]:
    """What the first registration may say, one after the other; by the order of arrival alone.

    `halved`: a worker died at process, so each batch is prepared in halves, and an original in it may be seen alone.
    """
    came = {what: min(n for n, batch in enumerate(batches) if what in batch) for what in HISTORY}
    original, rescore = min(came["O"], came["o"]), came["R"]
    possible = [[ORIGINAL, RESCORE]] if original < rescore else [[RESCORE]]
    return [[ORIGINAL, RESCORE], [RESCORE]] if original == rescore and halved else possible


def states_of(values: list[tuple[str, float]]) -> Counter[EventState]:
    """The states of the five events, when the first registration has said `values`."""
    states = Counter({EventState.SYNCED: 2, EventState.DUPLICATE: 1, EventState.DEAD: 1})
    states[EventState.SYNCED if ORIGINAL in values else EventState.SUPERSEDED] += 1
    return states


def in_batches(order: Order, grouping: str, chance: random.Random) -> list[Order]:
    """The deliveries that are there when a worker looks, one time after the other."""
    match grouping:
        case "together":
            return [order]
        case "in two":
            cut = chance.randrange(1, len(order))
            return [order[:cut], order[cut:]]
    return [[what] for what in order]


@pytest.fixture
def worker(pipeline: Pipeline) -> Iterator[MortalWorker]:
    """A worker beside the pipeline's."""
    services = build(pipeline.services.settings, patient=False)
    yield MortalWorker(services)
    services.close()


@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.parametrize("grouping", GROUPINGS)
def test_whatever_the_order_rhythm_ends_the_same_and_never_steps_back(
    pipeline: Pipeline, worker: MortalWorker, grouping: str, group: int, record_property: Callable[[str, object], None]
) -> None:
    chance, deaths, plays = random.Random(f"{grouping} {group}"), Counter[str](), 0
    for order, crashes in played(group, chance):
        pipeline.rhythm.reset()
        batches = in_batches(order, grouping, chance)
        for calls in crashes:
            died = play(pipeline, worker, History(plays), batches, calls)
            plays, deaths = plays + 1, deaths + Counter(died)
            if not died:
                break  # no batch takes so many calls
    found = books(pipeline.services.redis, TENANT)
    assert (found.differences, found.accepted) == ((), 5 * plays)
    assert deaths["intend"], "workers died with an intent"
    assert deaths["PATCH one"] + deaths["POST batch"], "and between Rhythm's answer and the ledger's record of it"
    record_property("sweep", f"{grouping}: {plays} histories; workers died after {dict(deaths)}")


def play(pipeline: Pipeline, worker: MortalWorker, history: History, batches: list[Order], calls: int) -> list[str]:
    """Deliver batch by batch; each has a worker that dies after so many calls, then another. Checks how it ends.

    Returns the last call of each worker that died.
    """
    ids, died = set[str](), list[str]()
    pipeline.rhythm.seed(ORG, history.registrations())
    for batch in batches:
        ids |= {accepted(pipeline, history.body(what)) for what in batch}
        if last := worker.dies(TENANT, calls):
            died.append(last)
        drain(pipeline)
    case = f"{batches}, where workers died after {calls} calls: {died}"
    values = said(pipeline, history.first)
    assert values in oracle(batches, calls == CLAIMED), case
    assert said(pipeline, history.retake) == [RETAKE], case
    assert Counter(states(pipeline, ids)) == states_of(values), case
    return died
