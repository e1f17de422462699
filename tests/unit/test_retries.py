"""When a failed attempt is tried again: a row for each policy and each edge."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import Policy, Reason
from worker.rules.retries import BASE, CAP, HORIZON, retry_delay

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LEAST = timedelta(milliseconds=100)
RETRIED = {Policy.RETRY, Policy.RETRY_THEN_HELD, Policy.GATE}


def delay(
    reason: Reason = Reason.REGISTRATION_NOT_FOUND,
    attempts: int = 1,
    since: timedelta | None = None,
    jitter: float = 1.0,
    retry_after: timedelta | None = None,
) -> timedelta | None:
    first = None if since is None else NOW - since
    return retry_delay(reason, attempts, first, NOW, jitter, retry_after)


def test_the_limits_have_their_documented_values() -> None:
    assert (timedelta(seconds=2), timedelta(minutes=15), timedelta(hours=72)) == (BASE, CAP, HORIZON)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_is_tried_again_when_its_policy_says_so(reason: Reason) -> None:
    assert (delay(reason) is not None) == (reason.policy in RETRIED)


@pytest.mark.parametrize(
    ("since", "again"),
    [
        pytest.param(None, True, id="never tried before"),
        pytest.param(timedelta(0), True, id="first tried just now"),
        pytest.param(HORIZON - timedelta(milliseconds=1), True, id="just before the horizon"),
        pytest.param(HORIZON, False, id="at the horizon"),
        pytest.param(HORIZON * 10, False, id="long after"),
    ],
)
@pytest.mark.parametrize("reason", [one for one in Reason if one.policy in RETRIED])
def test_only_an_attempt_that_fails_after_the_horizon_is_the_last(
    reason: Reason, since: timedelta | None, again: bool
) -> None:
    assert (delay(reason, since=since) is not None) == again


@pytest.mark.parametrize(
    ("attempts", "ceiling"),
    [
        pytest.param(0, BASE, id="none"),
        pytest.param(1, BASE, id="first"),
        pytest.param(2, BASE * 2, id="second"),
        pytest.param(3, BASE * 4, id="third"),
        pytest.param(9, BASE * 256, id="the last below the cap"),
        pytest.param(10, CAP, id="the cap"),
        pytest.param(10_000_000, CAP, id="a number that would overflow"),
    ],
)
def test_the_pause_doubles_up_to_the_cap_and_is_jittered_down_to_almost_nothing(
    attempts: int, ceiling: timedelta
) -> None:
    assert delay(attempts=attempts, jitter=1.0) == ceiling
    assert delay(attempts=attempts, jitter=0.5) == ceiling / 2
    assert delay(attempts=attempts, jitter=0.0) == LEAST


@pytest.mark.parametrize(
    ("retry_after", "jitter", "expected"),
    [
        pytest.param(timedelta(seconds=30), 0.0, timedelta(seconds=30), id="asked for more"),
        pytest.param(timedelta(hours=5), 1.0, timedelta(hours=5), id="asked for more than the cap"),
        pytest.param(timedelta(seconds=1), 1.0, BASE, id="asked for less"),
        pytest.param(timedelta(0), 0.0, LEAST, id="asked for nothing"),
    ],
)
def test_what_the_remote_asks_for_is_a_floor(retry_after: timedelta, jitter: float, expected: timedelta) -> None:
    assert delay(jitter=jitter, retry_after=retry_after) == expected


@given(
    attempts=st.integers(0, 100_000),
    jitter=st.floats(0, 1),
    retry_after=st.none() | st.timedeltas(timedelta(0), timedelta(days=1)),
)
def test_a_pause_is_never_below_the_floor_nor_above_the_cap_and_what_was_asked_for(
    attempts: int, jitter: float, retry_after: timedelta | None
) -> None:
    told = delay(attempts=attempts, jitter=jitter, retry_after=retry_after)
    assert told is not None
    assert max(LEAST, retry_after or LEAST) <= told <= max(CAP, retry_after or CAP)
