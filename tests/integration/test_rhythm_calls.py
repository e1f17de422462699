"""Each call to Rhythm, in each form that Rhythm may answer it, over HTTP against the stand-in."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from sandbox.control import Sandbox, start
from schemas.event import Reason
from schemas.rhythm import PatchOperation
from tests.integration.rhythm_peer import TENANT, answer, connection, peer, registration, rhythm_at
from worker.errors import ConfigurationError, TransientError
from worker.remote import ApiKey
from worker.rhythm.batch import ItemState
from worker.rhythm.client import Rhythm
from worker.rhythm.failures import (
    MissingReference,
    RegistrationGone,
    RhythmRejected,
    RhythmThrottled,
    RhythmUnavailable,
)
from worker.rhythm.transport import open_session

SCORE = PatchOperation(op="add", path="/score", value=Decimal("70.10"))


@pytest.fixture(scope="module")
def stand_in() -> Iterator[Sandbox]:
    with start() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(stand_in: Sandbox) -> Sandbox:
    stand_in.reset()
    return stand_in


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with open_session() as session:
        yield session


@pytest.fixture
def rhythm(sandbox: Sandbox, session: requests.Session) -> Rhythm:
    return rhythm_at(connection(sandbox.url), session)


def guard(version: int) -> PatchOperation:
    return PatchOperation(op="test", path="/sys_version", value=version)


def queries(sandbox: Sandbox) -> list[str]:
    return [urlsplit(call["path"]).query for call in sandbox.requests()]


def ids(found: list[Any]) -> list[str]:
    return [registration.id for registration in found]


# get


def test_get_gives_the_registration(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.seed(TENANT, [registration("reg-1", score=70.1, sys_version=5)])
    found = rhythm.get("reg-1")
    assert found is not None
    assert (found.id, found.score, found.sys_version, found.status) == ("reg-1", Decimal("70.1"), 5, "registered")


def test_get_gives_none_when_there_is_none(rhythm: Rhythm) -> None:
    assert rhythm.get("reg-1") is None


def test_an_id_may_hold_what_a_path_may_not(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.seed(TENANT, [registration("a|b:c-d")])
    assert rhythm.get("a|b:c-d") is not None
    assert rhythm.patch("a|b:c-d", [SCORE]).score == Decimal("70.1")


@pytest.mark.parametrize("id", ["", ".", "..", "a/b", "a b", "a?b", "é", "x" * 1025, "a\n"])
def test_what_cannot_be_an_id_is_not_asked_for(id: str, sandbox: Sandbox, rhythm: Rhythm) -> None:
    assert rhythm.get(id) is None
    assert rhythm.search(ids=[id]) == []
    assert sandbox.counts()["calls"] == 0


def test_a_consistent_read_is_never_behind(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.seed(TENANT, [registration("reg-1")])
    sandbox.edit(TENANT, "reg-1", score=50)
    sandbox.fault("stale", kind="get", times=None)
    behind, ahead = rhythm.get("reg-1"), rhythm.get("reg-1", consistent=True)
    assert behind is not None
    assert ahead is not None
    assert (behind.score, ahead.score) == (None, Decimal(50))


def test_another_registration_than_asked_for_is_no_answer(session: requests.Session) -> None:
    with peer(answer(body='{"id": "reg-2"}')) as server:
        rhythm = rhythm_at(connection(server.url), session)
        with pytest.raises(RhythmUnavailable, match="another registration") as read:
            rhythm.get("reg-1")
        with pytest.raises(RhythmUnavailable, match="another registration") as written:
            rhythm.patch("reg-1", [SCORE])
    assert (read.value.maybe_applied, written.value.maybe_applied) == (False, True)


# search and look-up


@pytest.mark.parametrize("cursor", ["string", "object"])
def test_a_search_follows_its_pages_to_the_end(cursor: str, sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.seed(TENANT, [registration(f"reg-{n:03}") for n in range(30)])
    sandbox.options(page_size=7, cursor=cursor)
    assert sorted(ids(rhythm.search(ids=[f"reg-{n:03}" for n in range(30)]))) == [f"reg-{n:03}" for n in range(30)]
    assert sandbox.counts()["calls"] == 5


def test_a_page_without_items_is_not_the_last(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.seed(TENANT, [registration(f"reg-{n}", email_address=f"{n}@example.org") for n in range(10)])
    sandbox.options(page_size=2, sparse_pages=True)
    assert ids(rhythm.search(email="9@example.org")) == ["reg-9"]


def test_ids_are_searched_a_hundred_at_a_time_and_once_each(sandbox: Sandbox, rhythm: Rhythm) -> None:
    names = [f"reg-{n}" for n in range(250)]
    sandbox.seed(TENANT, [registration(name) for name in names])
    assert sorted(ids(rhythm.search(ids=names + names))) == sorted(names)
    assert [len(call["ids"]) for call in sandbox.requests()] == [100, 100, 50]


def test_a_search_by_email_and_exam_gives_what_fits_both(sandbox: Sandbox, rhythm: Rhythm) -> None:
    mail = "b@example.org"
    sandbox.seed(TENANT, [registration("reg-1"), registration("reg-2", email_address=mail)])
    sandbox.seed(TENANT, [registration("reg-3", email_address=mail, exam_id="exam-2")])
    assert ids(rhythm.search(email=mail, exam_ids=["exam-1"])) == ["reg-2"]
    assert sorted(ids(rhythm.search(email=mail))) == ["reg-2", "reg-3"]
    assert ids(rhythm.search(ids=["reg-1", "reg-3"], exam_ids=["exam-2"])) == ["reg-3"]


def test_a_search_without_criteria_is_refused_and_one_for_no_ids_finds_none(sandbox: Sandbox, rhythm: Rhythm) -> None:
    with pytest.raises(ValueError, match="everything"):
        rhythm.search(email="")
    assert rhythm.search(ids=[]) == []
    assert sandbox.counts()["calls"] == 0


def test_a_registration_on_two_pages_is_one(session: requests.Session) -> None:
    first = '{"Items": [{"id": "a", "sys_version": 1}, {"id": "b"}], "LastEvaluatedKey": {"id": "b", "n": 1}}'
    second = '{"Items": [{"id": "a", "sys_version": 2}], "LastEvaluatedKey": null}'
    with peer(answer(body=first), answer(body=second)) as server:
        found = rhythm_at(connection(server.url), session).search(ids=["a", "b"])
        assert [(registration.id, registration.sys_version) for registration in found] == [("a", 2), ("b", None)]
        query = urlsplit(server.last[0].split()[1]).query
        assert parse_qs(query) == {"exclusiveStartKey": ['{"id":"b","n":1}']}


@pytest.mark.parametrize("end", ["null", '""', "{}"])
def test_a_list_may_be_a_bare_array_or_end_with_an_empty_cursor(end: str, session: requests.Session) -> None:
    for body in ('[{"id": "a"}]', f'{{"Count": 1, "Items": [{{"id": "a"}}], "LastEvaluatedKey": {end}}}'):
        with peer(answer(body=body)) as server:
            assert ids(rhythm_at(connection(server.url), session).search(ids=["a"])) == ["a"]
            assert len(server.requests) == 1


def test_pages_that_go_round_in_circles_are_left(session: requests.Session) -> None:
    pages = [answer(body=json.dumps({"Items": [], "LastEvaluatedKey": cursor})) for cursor in ("x", "y", "x")]
    with peer(*pages) as server:
        with pytest.raises(RhythmUnavailable, match="same cursor twice"):
            rhythm_at(connection(server.url), session).search(ids=["a"])
        assert len(server.requests) == 3


@pytest.mark.parametrize("nothing", ["404", "empty"])
def test_a_look_up_gives_a_persons_registrations_for_an_exam(nothing: str, sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.options(nothing_found=nothing, page_size=1)
    sandbox.seed(TENANT, [registration("reg-1", student_id="a/b ü?"), registration("reg-2", student_id="a/b ü?")])
    assert sorted(ids(rhythm.student_exam("a/b ü?", "exam-1"))) == ["reg-1", "reg-2"]
    assert rhythm.student_exam("someone", "exam-1") == []


@pytest.mark.parametrize("part", ["", ".", "..", "x" * 1025])
def test_what_cannot_be_part_of_a_path_is_not_looked_up(part: str, sandbox: Sandbox, rhythm: Rhythm) -> None:
    assert rhythm.student_exam(part, "exam-1") == rhythm.student_exam("student-1", part) == []
    assert sandbox.counts()["calls"] == 0


def test_half_a_list_is_not_taken_for_the_whole(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.seed(TENANT, [registration("reg-1"), registration("reg-2")])
    sandbox.options(page_size=1)
    sandbox.fault("status", kind="student_exam", status=404, skip=1)
    with pytest.raises(RegistrationGone):
        rhythm.student_exam("student-1", "exam-1")


# patch


def test_a_patch_gives_the_registration_as_it_is_then(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.seed(TENANT, [registration("reg-1", sys_version=3)])
    operations = [guard(3), SCORE, PatchOperation(op="replace", path="/status", value="passed")]
    after = rhythm.patch("reg-1", operations)
    assert (after.score, after.status, after.sys_version) == (Decimal("70.1"), "passed", 4)
    truth = sandbox.registration(TENANT, "reg-1")
    assert truth is not None
    assert (truth["score"], truth["status"]) == (70.1, "passed")


@pytest.mark.parametrize(("score", "sent"), [("70.10", "70.1"), ("70.00", "70"), ("1E+2", "100"), ("66.67", "66.67")])
def test_a_score_is_sent_as_the_number_it_is(score: str, sent: str, session: requests.Session) -> None:
    with peer(answer(body='{"id": "reg-1"}')) as server:
        operation = PatchOperation(op="add", path="/score", value=Decimal(score))
        rhythm_at(connection(server.url), session).patch("reg-1", [operation])
        assert server.last[1] == f'[{{"op":"add","path":"/score","value":{sent}}}]'
        assert "Content-Type: application/json" in server.last[0]


@pytest.mark.parametrize("values", ["string", "strict_string"])
def test_values_go_as_texts_where_rhythm_wants_texts(values: str, sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.options(values=values)
    sandbox.seed(TENANT, [registration("reg-1", sys_version=3, notes="n")])
    fields = [{"custom_field_id": "a__c", "numeric_value": Decimal("1.5")}]
    operations = [
        guard(3),
        SCORE,
        PatchOperation(op="add", path="/custom_field_values", value=fields),
        PatchOperation(op="replace", path="/status", value="passed"),
        PatchOperation(op="remove", path="/notes"),
    ]
    rhythm = rhythm_at(connection(sandbox.url, patch_values="string"), session)
    rhythm.patch("reg-1", operations)
    assert rhythm.batch({"reg-1": [guard(4), SCORE]})["reg-1"].state is ItemState.APPLIED
    truth = sandbox.registration(TENANT, "reg-1")
    assert truth is not None
    assert (truth["score"], truth["status"], "notes" in truth) == (70.1, "passed", False)
    assert truth["custom_field_values"] == [{"custom_field_id": "a__c", "numeric_value": 1.5}]


@pytest.mark.parametrize("status", [400, 412])
def test_a_guard_that_does_not_hold_is_a_rejection(status: int, sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.options(failed_test_status=status)
    sandbox.seed(TENANT, [registration("reg-1", sys_version=3)])
    with pytest.raises(RhythmRejected) as caught:
        rhythm.patch("reg-1", [guard(2), SCORE])
    assert caught.value.status == status
    assert sandbox.history(TENANT, "reg-1") == []


def test_a_patch_of_a_registration_that_is_gone_may_succeed_later(rhythm: Rhythm) -> None:
    with pytest.raises(RegistrationGone) as caught:
        rhythm.patch("reg-1", [SCORE])
    assert caught.value.reason is Reason.REGISTRATION_NOT_FOUND


def test_a_reference_to_nothing_is_permanent(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.seed(TENANT, [registration("reg-1")])
    sandbox.options(known_exam_ids=["exam-1"])
    with pytest.raises(MissingReference):
        rhythm.patch("reg-1", [PatchOperation(op="replace", path="/exam_id", value="exam-9")])


# batch


def batch_of_three(sandbox: Sandbox, rhythm: Rhythm) -> dict[str, Any]:
    """The first one's guard does not hold."""
    sandbox.seed(TENANT, [registration(f"reg-{n}", sys_version=1) for n in range(3)])
    return rhythm.batch({f"reg-{n}": [guard(9 if n == 0 else 1), SCORE] for n in range(3)})


@pytest.mark.parametrize("order", ["request", "shuffled"])
@pytest.mark.parametrize(
    ("form", "status", "carried"), [("by_id", 400, True), ("by_index", 400, False), ("bare", None, True)]
)
def test_each_result_of_a_batch_is_its_registrations_own(
    form: str, status: int | None, carried: bool, order: str, sandbox: Sandbox, rhythm: Rhythm
) -> None:
    sandbox.options(batch_results=form, batch_order=order)
    results = batch_of_three(sandbox, rhythm)
    assert [results[f"reg-{n}"].state for n in range(3)] == [ItemState.FAILED, ItemState.APPLIED, ItemState.APPLIED]
    assert (results["reg-1"].registration is not None) is carried
    if carried:
        assert (results["reg-1"].registration.id, results["reg-1"].registration.sys_version) == ("reg-1", 2)
    error = results["reg-0"].error
    assert isinstance(error, RhythmRejected)
    assert error.status == status


def test_results_that_say_nothing_are_unknown_unless_all_of_them_went_one_way(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.options(batch_results="opaque")
    assert {result.state for result in batch_of_three(sandbox, rhythm).values()} == {ItemState.UNKNOWN}
    done = rhythm.batch({f"reg-{n}": [SCORE] for n in range(3)})
    assert {result.state for result in done.values()} == {ItemState.APPLIED}
    refused = rhythm.batch({f"reg-{n}": [guard(9)] for n in range(3)})
    assert {result.state for result in refused.values()} == {ItemState.FAILED}


def test_a_hundred_go_in_one_call_and_no_more(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.seed(TENANT, [registration(f"reg-{n}") for n in range(100)])
    results = rhythm.batch({f"reg-{n}": [SCORE] for n in range(100)})
    assert {result.state for result in results.values()} == {ItemState.APPLIED}
    assert sandbox.counts()["calls"] == 1
    for size in (0, 101):
        with pytest.raises(ValueError, match="1 to 100"):
            rhythm.batch({f"reg-{n}": [SCORE] for n in range(size)})


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, RhythmThrottled), (500, RhythmUnavailable), (403, RhythmRejected), (409, MissingReference)],
)
def test_one_of_a_batch_may_fail_alone(status: int, error: type[Exception], sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.seed(TENANT, [registration("reg-1"), registration("reg-2")])
    sandbox.fault("item_error", ids=["reg-1"], status=status)
    results = rhythm.batch({"reg-1": [SCORE], "reg-2": [SCORE]})
    assert type(results["reg-1"].error) is error
    assert results["reg-2"].state is ItemState.APPLIED


def test_an_object_goes_along_where_rhythm_wants_one(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.seed(TENANT, [registration("reg-1")])
    sandbox.options(batch_requires_object=True)
    states = [
        rhythm_at(connection(sandbox.url, batch_object=given), session).batch({"reg-1": [SCORE]})["reg-1"].state
        for given in (False, True)
    ]
    assert states == [ItemState.FAILED, ItemState.APPLIED]


def test_a_batch_may_be_refused_whole(sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.seed(TENANT, [registration("reg-1"), registration("reg-2")])
    sandbox.options(batch_refuses_whole=True)
    with pytest.raises(RhythmRejected):
        rhythm.batch({"reg-1": [PatchOperation(op="replace", path="/status", value="?")], "reg-2": [SCORE]})
    assert sandbox.counts()["writes"] == 0


@pytest.mark.parametrize("status", [400, 404, 409, 412, 413, 422])
def test_whatever_refuses_a_batch_whole_is_a_rejection(status: int, sandbox: Sandbox, rhythm: Rhythm) -> None:
    sandbox.fault("status", kind="batch", status=status)
    with pytest.raises(RhythmRejected) as caught:
        rhythm.batch({"reg-1": [SCORE], "reg-2": [SCORE]})
    assert caught.value.status == status


# credentials and gate


@pytest.mark.parametrize(("header", "sent"), [("bearer", "Bearer sandbox-key"), ("raw", "sandbox-key")])
def test_an_api_key_is_sent_as_configured(header: str, sent: str, session: requests.Session) -> None:
    credentials = {"kind": "api_key", "key": "env:KEY", "header": header}
    with peer(answer(body='{"id": "reg-1"}')) as server:
        rhythm_at(connection(server.url, credentials=credentials), session).get("reg-1")
        assert f"Authorization: {sent}" in server.last[0].splitlines()


def test_a_key_that_no_header_can_hold_is_an_operators_mistake_and_is_not_shown(session: requests.Session) -> None:
    for key in ("secret\n", "sécret"):
        credentials = ApiKey.model_validate({"kind": "api_key", "key": "env:K"}, context={"environ": {"K": key}})
        settings = connection("http://127.0.0.1:1").model_copy(update={"credentials": credentials})
        with pytest.raises(ConfigurationError) as caught:
            rhythm_at(settings, session)
        assert "cret" not in str(caught.value)


def test_every_call_takes_a_token_at_the_gate_and_a_closed_gate_lets_none_through(
    sandbox: Sandbox, session: requests.Session
) -> None:
    sandbox.seed(TENANT, [registration("reg-1"), registration("reg-2")])
    sandbox.options(page_size=1)
    taken = 0

    def three() -> None:
        nonlocal taken
        taken += 1
        if taken > 3:
            raise TransientError(Reason.RHYTHM_THROTTLED, "closed")

    rhythm = rhythm_at(connection(sandbox.url), session, three)
    rhythm.get("reg-1")
    rhythm.search(ids=["reg-1", "reg-2"])
    with pytest.raises(TransientError, match="closed"):
        rhythm.patch("reg-1", [SCORE])
    assert (taken, sandbox.counts()["calls"], sandbox.counts()["writes"]) == (4, 3, 0)


def test_nothing_is_taken_from_the_environment(
    sandbox: Sandbox, session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert rhythm_at(connection(sandbox.url), session).get("reg-1") is None
