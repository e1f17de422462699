"""Each answer of Rhythm means one thing, decided in one place."""

import pickle
from datetime import UTC, datetime, timedelta

import pytest

from schemas.event import Reason
from worker.rhythm.failures import (
    Call,
    CredentialsRefused,
    MissingReference,
    RegistrationGone,
    RhythmRejected,
    RhythmThrottled,
    RhythmUnavailable,
    refusal,
    retry_after,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DAY = 86_400


@pytest.mark.parametrize(
    ("status", "error", "maybe_applied"),
    [
        (300, RhythmUnavailable, True),
        (302, RhythmUnavailable, True),
        (400, RhythmRejected, None),
        (401, CredentialsRefused, False),
        (403, CredentialsRefused, False),
        (404, RegistrationGone, False),
        (405, RhythmUnavailable, True),
        (408, RhythmUnavailable, True),
        (409, MissingReference, None),
        (410, RegistrationGone, False),
        (412, RhythmRejected, None),
        (413, RhythmRejected, None),
        (422, RhythmRejected, None),
        (425, RhythmUnavailable, True),
        (429, RhythmThrottled, False),
        (451, RhythmUnavailable, True),
        (500, RhythmUnavailable, True),
        (502, RhythmUnavailable, True),
        (503, RhythmUnavailable, True),
        (504, RhythmUnavailable, True),
        (599, RhythmUnavailable, True),
    ],
)
def test_each_status_has_its_meaning(status: int, error: type[Exception], maybe_applied: bool | None) -> None:
    failure = refusal(Call.PATCH, status, {}, NOW)
    assert type(failure) is error
    assert getattr(failure, "maybe_applied", None) is maybe_applied
    assert getattr(failure, "status", None) == status
    assert f"answered {status} to a patch" in failure.detail
    assert getattr(refusal(Call.READ, status, {}, NOW), "maybe_applied", False) is False


@pytest.mark.parametrize(
    ("call", "statuses", "error"),
    [
        (Call.BATCH, (400, 404, 409, 410, 412, 413, 422), RhythmRejected),
        (Call.BATCH, (401, 403), CredentialsRefused),
        (Call.BATCH_ITEM, (400, 401, 403, 412, 422), RhythmRejected),
        (Call.BATCH_ITEM, (404, 410), RegistrationGone),
        (Call.BATCH_ITEM, (409,), MissingReference),
        (Call.TOKEN, (400, 401, 403, 404, 410, 412, 413, 422), CredentialsRefused),
        (Call.TOKEN, (302, 409, 500), RhythmUnavailable),
        (Call.READ, (404, 410), RegistrationGone),
        (Call.READ, (409,), RhythmUnavailable),
    ],
)
def test_a_status_means_what_it_can_mean_for_that_kind_of_call(
    call: Call, statuses: tuple[int, ...], error: type[Exception]
) -> None:
    assert {type(refusal(call, status, {}, NOW)) for status in statuses} == {error}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RhythmUnavailable(), Reason.RHYTHM_UNAVAILABLE),
        (RhythmThrottled(), Reason.RHYTHM_THROTTLED),
        (CredentialsRefused(), Reason.CREDENTIALS_REFUSED),
        (RegistrationGone(), Reason.REGISTRATION_NOT_FOUND),
        (RhythmRejected(), Reason.RHYTHM_REJECTED),
        (MissingReference(), Reason.MISSING_REFERENCE),
    ],
)
def test_each_failure_carries_its_reason(error: RhythmUnavailable, reason: Reason) -> None:
    assert error.reason is reason


@pytest.mark.parametrize(
    "error",
    [
        RhythmUnavailable("no answer", timedelta(seconds=5), True, 503),
        RhythmThrottled("429", timedelta(hours=1)),
        CredentialsRefused("403", status=403),
        RegistrationGone("404"),
        RhythmRejected("400", 400),
        MissingReference("409"),
    ],
)
def test_every_failure_survives_pickling(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (vars(copy), str(copy), copy.args) == (vars(error), str(error), error.args)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("+3", 3),
        ("-5", 0),
        ("1.2", 2),
        ("86401", DAY),
        ("9" * 400, DAY),
        ("", None),
        ("soon", None),
        ("1e3", None),
        ("1_000", None),
        ("Sun, 01 Mar 2026 12:02:00 GMT", 120),
        ("Sun, 01 Mar 2026 14:02:00 +0200", 120),
        ("Sun, 01 Mar 2026 12:02:00 -0000", 120),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Tue, 03 Mar 2026 12:00:00 GMT", DAY),
        ("Sun, 99 Mar 2026 12:02:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: int | None) -> None:
    wait = None if seconds is None else timedelta(seconds=seconds)
    assert retry_after({"Retry-After": text}, NOW) == wait


@pytest.mark.parametrize(
    ("date", "seconds"),
    [("Sun, 01 Mar 2026 09:00:00 GMT", 60), ("Sun, 01 Mar 2026 09:00:30 GMT", 30), ("yesterday", 0), ("", 0)],
)
def test_a_date_is_measured_against_the_answers_own(date: str, seconds: int) -> None:
    headers = {"Retry-After": "Sun, 01 Mar 2026 09:01:00 GMT", "Date": date}
    assert retry_after(headers, NOW) == timedelta(seconds=seconds)


def test_without_the_header_there_is_no_wait() -> None:
    assert retry_after({}, NOW) is None


@pytest.mark.parametrize("status", [429, 401, 503])
def test_whatever_waits_carries_retry_after(status: int) -> None:
    failure = refusal(Call.READ, status, {"Retry-After": "9"}, NOW)
    assert getattr(failure, "retry_after", None) == timedelta(seconds=9)
