"""An outcome and its version."""

import json
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from schemas.outcome import Candidate, ExamOutcome, Part, Source, Verdict
from schemas.values import Number
from tests import samples
from tests.events import certiverse
from worker.sources import read


def outcome(**members: Any) -> ExamOutcome:
    least: dict[str, Any] = {
        "source": Source.CERTIVERSE,
        "delivery": "d-1",
        "exam_codes": ("CSE-1",),
        "candidate": Candidate(student_id="S-1", email_sent="a@example.org"),
        "scores": {"reported": Decimal(500), "cut": Decimal(400)},
        "completed_at": datetime(2026, 3, 4, 15, tzinfo=UTC),
    }
    return ExamOutcome(**least | members)


def as_certiverse(score: object, custom_data: list[dict[str, Any]] | None = None) -> ExamOutcome:
    """What Certiverse's payload means with this score, and these custom data."""
    sent = json.loads(certiverse())
    sent["examResult"]["reportedScore"] = score
    sent["customData"] = custom_data
    result = read(Source.CERTIVERSE, json.dumps(sent).encode())
    assert result
    return result


@pytest.mark.parametrize("written", [500, 500.0, "500", "500.0", "500.00", "5E2", "5.00e+2", " +0500 ", "5000e-1"])
def test_two_ways_of_writing_a_number_are_one_version(written: object) -> None:
    assert as_certiverse(written).version == as_certiverse(500).version != as_certiverse(500.5).version


@pytest.mark.parametrize("written", [0.0000001, "0.0000001", "0.00000010", "1e-7", "10E-8"])
def test_two_ways_of_writing_a_small_number_are_one_version(written: object) -> None:
    assert as_certiverse(written).version == as_certiverse(1e-7).version


@pytest.mark.parametrize("written", [0, 0.0, -0.0, "-0", "0.00", "0e5", "-.0"])
def test_zero_has_one_spelling(written: object) -> None:
    assert as_certiverse(written).version == as_certiverse(0).version


@given(st.decimals(-(10**11), 10**11, allow_nan=False, places=6), st.integers(0, 4), st.integers(-3, 3))
def test_a_number_is_one_decimal_however_it_is_written(number: Decimal, noughts: int, shift: int) -> None:
    plain = TypeAdapter(Number).validate_python(f"{number:f}")
    more = f"{number:f}{'0' * noughts}"
    moved = f"{number.scaleb(-shift):f}e{shift}"
    for written in (more, moved, f"  {more} "):
        assert str(TypeAdapter(Number).validate_python(written)) == str(plain)
    assert plain == number


def test_what_is_sent_in_no_certain_order_is_one_version() -> None:
    sent = [{"name": "Region", "value": "North"}, {"name": "Cohort", "value": "7"}]
    assert as_certiverse(1, sent).version == as_certiverse(1, sent[::-1]).version != as_certiverse(1, sent[:1]).version


@pytest.mark.parametrize("written", ["2026-03-04T10:00-05:00", "2026-03-04 15:00:00.000", "2026-03-04T15:00:00z"])
def test_two_ways_of_writing_an_instant_are_one_version(written: str) -> None:
    completed = {"examDelivery.deliveryCompletedDateTime": written}
    told = read(Source.CERTIVERSE, samples.edited("certiverse/passed", completed))
    completed = {"examDelivery.deliveryCompletedDateTime": "2026-03-04T15:00:00Z"}
    assert told
    assert told.completed_at == datetime(2026, 3, 4, 15, tzinfo=UTC)
    assert told == read(Source.CERTIVERSE, samples.edited("certiverse/passed", completed))


def test_a_changed_address_or_third_party_id_is_not_another_version() -> None:
    moved = Candidate(student_id="S-1", email_sent="b@example.org", third_party_ids={"EXAMPLE": "1"})
    assert outcome(candidate=moved).version == outcome().version


def test_an_address_is_kept_as_sent_beside_the_folded_one_and_neither_is_part_of_the_version() -> None:
    sent = Candidate(student_id="S-1", email_sent="A@Example.org")
    assert (sent.email, sent.email_sent) == ("a@example.org", "A@Example.org")
    assert Candidate().email is None
    assert outcome(candidate=sent).version == outcome().version


def test_our_own_words_are_not_part_of_the_version() -> None:
    assert outcome(unclear="in one release").version == outcome(unclear="in the next").version


def test_the_event_reference_is_not_part_of_the_version() -> None:
    assert outcome(event_ref="e-1").version == outcome(event_ref="e-2").version


@pytest.mark.parametrize(
    "change",
    [
        {"scores": {"reported": Decimal("500.01"), "cut": Decimal(400)}},
        {"scores": {"reported": Decimal(500)}},
        {"verdict": Verdict.PASSED},
        {"exam_codes": ("CSE-2",)},
        {"candidate": Candidate(student_id="S-2", email_sent="a@example.org")},
        {"registration_ids": {"eligibilityId": "reg-1"}},
        {"completed_at": datetime(2026, 3, 4, 15, 0, 1, tzinfo=UTC)},
        {"termination_reason": "CandidateLeft"},
        {"parts": (Part(kind="topic", name="Ethics", scores={"raw": Decimal(1)}),)},
        {"details": {"customData.Region": "North"}},
        {"rescore": True},
    ],
)
def test_every_value_that_could_be_written_makes_another_version(change: dict[str, Any]) -> None:
    assert outcome(**change).version != outcome().version


@pytest.mark.parametrize(
    ("started", "completed", "says"),
    [
        (None, "2026-03-05T11:59", None),
        (None, "2026-03-05T12:01", "completed more than a day after it was received"),
        (None, "2027-03-05", "completed more than a day after it was received"),
        ("2026-03-04T10:00", "2026-03-04T10:00", None),
        ("2026-03-04T10:00:40", "2026-03-04T10:00", None),
        ("2026-03-04T10:01", "2026-03-04T10:00", "completed before it was started"),
        ("2026-03-04T10:00", "2026-03-04", None),
        ("2026-03-05T00:00", "2026-03-04", "completed before it was started"),
        ("2026-03-04T10:00", None, None),
    ],
)
def test_times_that_cannot_be_contradict_the_outcome(
    started: str | None, completed: str | None, says: str | None
) -> None:
    times = {"started_at": started, "completed_at": completed}
    told = outcome(**{name: at and datetime.fromisoformat(at).replace(tzinfo=UTC) for name, at in times.items()})
    found = told.contradicting(datetime(2026, 3, 4, 12, tzinfo=UTC))
    assert found.contradiction == says
    assert found.version == told.version


def test_an_outcome_never_changes() -> None:
    with pytest.raises(FrozenInstanceError):
        outcome().verdict = Verdict.PASSED  # type: ignore[misc]
