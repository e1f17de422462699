"""Which of a delivery's results counts: every combination, as a table."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from schemas.event import EventState
from worker.rules.order import Order, Version, order

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
APPLY, SUPERSEDED, CONFLICT = Order.APPLY, Order.SUPERSEDED, Order.CONFLICT
READY, SYNCED, HELD, DEAD = EventState.READY, EventState.SYNCED, EventState.HELD, EventState.DEAD
DISCARDED, REPLACED, PRUNED = EventState.DISCARDED, EventState.SUPERSEDED, None


def known(*told: tuple[str, EventState | None, int]) -> list[Version]:
    """Siblings as (version, state, minutes after noon)."""
    return [Version(version, state, NOON + timedelta(minutes=minutes)) for version, state, minutes in told]


def decide(
    version: str, siblings: list[Version], applied: str | None = None, rule: str = "hold", accepted: bool = False
) -> Order:
    arriving = Version(version, READY, NOON)
    return order(arriving, siblings, applied, rule, accepted=accepted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "siblings", "applied", "expected"),
    [
        pytest.param("o-1", [], None, APPLY, id="an only original"),
        pytest.param("r-1", [], None, APPLY, id="an only rescore"),
        pytest.param("o-1", [("o-1", SYNCED, -1)], "o-1", APPLY, id="what is applied already, again"),
        pytest.param("r-1", [("r-1", SYNCED, -1)], "r-1", APPLY, id="a rescore that is applied already, again"),
        pytest.param("r-1", [("o-1", READY, -1)], None, APPLY, id="a rescore with its original still waiting"),
        pytest.param("r-1", [("o-1", SYNCED, -1)], "o-1", APPLY, id="a rescore of what is applied"),
        pytest.param("r-1", [("o-1", READY, 1)], None, APPLY, id="a rescore received before its original"),
        pytest.param("r-1", [("o-1", HELD, -1), ("o-2", HELD, -1)], None, APPLY, id="a rescore ends a dispute"),
        pytest.param("o-1", [("r-1", READY, 1)], None, SUPERSEDED, id="an original with its rescore waiting"),
        pytest.param("o-1", [("r-1", SYNCED, -1)], "r-1", SUPERSEDED, id="an original after its rescore"),
        pytest.param("o-1", [], "r-1", SUPERSEDED, id="an original after a rescore that is off the books"),
        pytest.param("o-1", [("r-1", HELD, 1)], None, SUPERSEDED, id="an original whose rescore waits for a person"),
        pytest.param("o-1", [("r-1", EventState.DUPLICATE, 1)], None, SUPERSEDED, id="a rescore known as a duplicate"),
        pytest.param("o-1", [("r-1", PRUNED, -1)], None, SUPERSEDED, id="an original after a pruned rescore"),
        pytest.param("o-1", [("r-1", DEAD, 1)], None, APPLY, id="an original whose rescore is dead"),
        pytest.param("o-1", [("r-1", DISCARDED, 1)], None, APPLY, id="an original whose rescore was discarded"),
        pytest.param(
            "o-1", [("r-1", REPLACED, 1), ("r-2", READY, 1)], None, SUPERSEDED, id="one of two rescores counts"
        ),
        pytest.param("o-2", [("o-1", SYNCED, -1)], "o-1", CONFLICT, id="a second original that differs"),
        pytest.param("o-2", [("o-1", READY, 1)], None, CONFLICT, id="two originals that wait"),
        pytest.param("o-2", [("o-1", HELD, 1)], None, CONFLICT, id="an original held already"),
        pytest.param("o-2", [("o-1", PRUNED, -1)], None, CONFLICT, id="a pruned original"),
        pytest.param("o-2", [("o-1", DEAD, -1)], None, APPLY, id="the other original is dead"),
        pytest.param("o-2", [("o-1", DISCARDED, -1)], None, APPLY, id="the other original was discarded"),
        pytest.param("o-2", [("o-1", REPLACED, -1)], None, APPLY, id="the other original was replaced"),
        pytest.param("r-2", [("r-1", SYNCED, -1)], "r-1", CONFLICT, id="a second rescore that differs"),
        pytest.param("r-2", [("r-1", READY, 1), ("o-1", SYNCED, -9)], "o-1", CONFLICT, id="two rescores that wait"),
        pytest.param("r-2", [("r-1", DEAD, -1), ("o-1", SYNCED, -9)], "o-1", APPLY, id="the other rescore is dead"),
    ],
)
def test_a_rescore_replaces_an_original_and_equals_that_differ_are_a_conflict(
    version: str, siblings: list[tuple[str, EventState | None, int]], applied: str | None, expected: Order
) -> None:
    assert decide(version, known(*siblings), applied) is expected


@pytest.mark.parametrize(
    ("version", "siblings", "applied", "expected"),
    [
        pytest.param("o-2", [("o-1", SYNCED, -1)], "o-1", APPLY, id="the original received last"),
        pytest.param("o-2", [("o-1", READY, 1)], None, SUPERSEDED, id="an original received earlier, synced later"),
        pytest.param(
            "o-2", [("o-1", SYNCED, 1)], "o-1", SUPERSEDED, id="an original received earlier than the applied"
        ),
        pytest.param("o-2", [("o-1", READY, 0)], None, APPLY, id="received in the same millisecond"),
        pytest.param("r-2", [("r-1", SYNCED, -1)], "r-1", APPLY, id="the rescore received last"),
        pytest.param("r-2", [("r-1", READY, 1), ("r-3", READY, -1)], None, SUPERSEDED, id="between two rescores"),
        pytest.param("r-2", [("o-1", SYNCED, 1)], "o-1", APPLY, id="a rescore received before its original"),
        pytest.param("o-1", [("r-1", SYNCED, -1)], "r-1", SUPERSEDED, id="an original received after a rescore"),
        pytest.param("o-2", [("o-1", DEAD, 1)], None, APPLY, id="a later one that is dead"),
        pytest.param("o-2", [("o-1", HELD, 1)], None, SUPERSEDED, id="a later one that waits for a person"),
    ],
)
def test_a_tenant_may_say_that_the_one_received_last_counts(
    version: str, siblings: list[tuple[str, EventState | None, int]], applied: str | None, expected: Order
) -> None:
    assert decide(version, known(*siblings), applied, "received") is expected


@pytest.mark.parametrize(
    ("version", "siblings", "applied", "expected"),
    [
        pytest.param("o-2", [("o-1", SYNCED, -1)], "o-1", APPLY, id="an original instead of the applied one"),
        pytest.param("r-1", [("r-2", SYNCED, 1)], "r-2", APPLY, id="a rescore that was replaced"),
        pytest.param("o-2", [("r-1", SYNCED, 1)], "r-1", SUPERSEDED, id="not an original instead of a rescore"),
        pytest.param("o-2", [("r-1", READY, 1)], None, SUPERSEDED, id="not an original before a rescore that waits"),
    ],
)
def test_a_persons_answer_decides_a_conflict_and_no_more(
    version: str, siblings: list[tuple[str, EventState | None, int]], applied: str | None, expected: Order
) -> None:
    assert decide(version, known(*siblings), applied, accepted=True) is expected
    assert decide(version, known(*siblings), applied, "received", accepted=True) is expected


OTHERS = [
    pytest.param("r-1", "o-9", READY, -1, CONFLICT, id="a rescore after another person's original"),
    pytest.param("r-1", "o-9", SYNCED, 0, CONFLICT, id="received together"),
    pytest.param("o-1", "r-9", SYNCED, -1, CONFLICT, id="an original after another person's rescore"),
    pytest.param("o-1", "o-9", HELD, -1, CONFLICT, id="two originals of two people"),
    pytest.param("o-1", "r-9", HELD, 1, APPLY, id="whose came first goes on"),
    pytest.param("r-1", "r-9", SYNCED, 1, APPLY, id="and whose rescore came first"),
    pytest.param("o-1", "r-9", DEAD, -1, APPLY, id="another person's dead one"),
    pytest.param("o-1", "r-9", DISCARDED, -1, APPLY, id="another person's discarded one"),
]


@pytest.mark.parametrize(("version", "other", "state", "minutes", "expected"), OTHERS)
@pytest.mark.parametrize("rule", ["hold", "received"])
def test_a_result_of_another_person_replaces_nothing(
    version: str, other: str, state: EventState, minutes: int, expected: Order, rule: str
) -> None:
    stranger = Version(other, state, NOON + timedelta(minutes=minutes), stranger=True)
    assert decide(version, [stranger], None, rule) is expected
    assert decide(version, [stranger], None, rule, accepted=True) is APPLY
    mine = known(("r-2", READY, 1))[0]
    assert decide("o-1", [stranger, mine], None, rule) is SUPERSEDED, "a person's own rescore does"


@pytest.mark.parametrize("rule", ["hold", "received"])
def test_the_order_of_the_siblings_never_matters(rule: str) -> None:
    siblings = known(("o-1", SYNCED, -2), ("r-1", READY, 1), ("o-2", DEAD, 2), ("r-2", HELD, -1))
    for version in ("o-1", "o-3", "r-1", "r-3"):
        answers = {decide(version, list(one), "o-1", rule) for one in permutations(siblings)}
        assert len(answers) == 1
