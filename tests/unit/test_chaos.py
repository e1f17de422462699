"""The chaos runs: a seed is a schedule, each check can fail, and every known bug can still be put back."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chaos.bodies import CANARY, certiverse, registration
from chaos.bugs import BUGS
from chaos.checker import check
from chaos.minimise import minimise
from chaos.schedule import Schedule, Sending, Sitting, schedule
from tests.running import ROOT

SOURCE, ORIGINAL, RESULT, _ = certiverse("1", 60)
_, RESCORE, RESCORED, _ = certiverse("1", 90, rescore=True)
SENDINGS = (Sending(0, SOURCE, ORIGINAL, RESULT), Sending(1, SOURCE, RESCORE, RESCORED, rescore=True))
SITTING = Sitting("steady", "rescored", "1", (registration("1", "exam-1"),), SENDINGS)
PLAN = Schedule(1, 1.0, (SITTING,), (), (), 0.5, (), ())


def write(version: int, by: str = "api", **changes: list[Any]) -> dict[str, Any]:
    return {"at": float(version), "by": by, "sys_version": version, "changes": changes}


def call(n: int, status: int | None = 200) -> dict[str, Any]:
    at = 2.0 * n
    return {
        "n": n,
        "at": at,
        "ended_at": at + 0.1,
        "retry_after": None,
        "kind": "batch",
        "ids": ["reg-1"],
        "status": status,
    }


def event(id: str, state: str) -> dict[str, Any]:
    delivery = "certiverse:dlv-1"
    return {"id": id, "tenant": "steady", "state": state, "reason": None, "attempts": 0, "delivery": delivery}


def good() -> dict[str, Any]:
    """What is seen when an original and then its rescore were written."""
    history = [
        write(2, status=["registered", "failed"], score=[None, "60"]),
        write(3, status=["failed", "passed"], score=["60", "90"]),
    ]
    record = {
        "registration": {"id": "reg-1", "status": "passed", "score": "90", "notes": "as it was"},
        "history": history,
        "letters": [{"status": "failed", "sys_version": 2}, {"status": "passed", "sys_version": 3}],
    }
    return {
        "tenants": {"steady": {"records": {"reg-1": record}, "requests": [call(1)], "calls": 1}},
        "events": [event("a", "synced"), event("b", "synced")],
        "receipts": [{"id": "a", "who": "1"}, {"id": "b", "who": "1"}],
        "status": {"tenants": {"steady": {"states": {"synced": 2, "held": 0}}}},
        "audit": {"accepted": 2, "accounted": 2, "pruned": 0, "differences": []},
        "left": {},
        "marked": {},
        "strays": {"strays": []},
        "acts": [],
        "metrics": "",
        "sentry": [],
    }


def record(seen: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = seen["tenants"]["steady"]["records"]["reg-1"]
    return found


def step_back(seen: dict[str, Any]) -> None:
    record(seen)["history"].append(write(4, status=["passed", "failed"], score=["90", "60"]))


def edited_over(seen: dict[str, Any]) -> None:
    record(seen)["history"].insert(1, write(3, "registrar", score=["60", "77.75"]))


def too_early(seen: dict[str, Any]) -> None:
    calls = seen["tenants"]["steady"]["requests"]
    calls[0]["retry_after"] = "5"
    calls.append(call(2))


#: By the check that must see it: what would be seen if a promise were not kept.
BROKEN: dict[str, list[Callable[[dict[str, Any]], Any]]] = {
    "accepted is kept": [lambda seen: seen["receipts"].append({"id": "c", "who": "1"})],
    "one state": [
        lambda seen: seen["events"].append(event("a", "held")),
        lambda seen: seen["status"]["tenants"]["steady"]["states"].update(held=1),
    ],
    "audit": [
        lambda seen: seen["audit"].update(accounted=1),
        lambda seen: seen["audit"]["differences"].append({"registration": "reg-1"}),
    ],
    "nothing is left": [
        lambda seen: seen["left"].update({"er:steady:slots": ["x"]}),
        lambda seen: seen["marked"].update({"er:steady:event:a": ["lease"]}),
    ],
    "nothing waits for ever": [lambda seen: seen["events"][0].update(state="ready")],
    "private": [
        lambda seen: seen.update(metrics=CANARY),
        lambda seen: seen.update(sentry=[f"{{{CANARY}}}"]),
        lambda seen: seen["left"].update({"examrelay": [CANARY]}),
    ],
    "patient": [too_early],
    "once": [
        lambda seen: record(seen)["history"].append(write(4)),
        lambda seen: record(seen)["letters"].append({"status": "passed", "sys_version": 3}),
        lambda seen: seen["events"].pop(),
    ],
    "truth": [lambda seen: record(seen)["history"].append(write(4, score=["90", "91"]))],
    "never backwards": [step_back],
    "no edit is lost": [edited_over],
    "Rhythm says what the model says": [
        lambda seen: record(seen)["registration"].update(score="60"),
        lambda seen: seen["events"][0].update(state="dead"),
    ],
}


def test_what_keeps_every_promise_violates_nothing() -> None:
    assert check(PLAN, good()) == []


@pytest.mark.parametrize(("by", "number"), [(by, number) for by, each in BROKEN.items() for number in range(len(each))])
def test_each_check_sees_what_it_is_there_for(by: str, number: int) -> None:
    seen = good()
    BROKEN[by][number](seen)

    assert by in {violation.check for violation in check(PLAN, seen)}


def test_the_other_registration_of_an_ambiguous_candidate_stays_untouched() -> None:
    seen, other = good(), copy.deepcopy(record(good()))
    seen["tenants"]["steady"]["records"]["reg-1-b"] = other
    two = replace(SITTING, registrations=(*SITTING.registrations, registration("1", "exam-1", "-b")))

    assert "never a guess" in {one.check for one in check(replace(PLAN, sittings=(two,)), seen)}


def test_a_personal_value_in_a_log_is_seen(tmp_path: Path) -> None:
    (tmp_path / "worker-0.log").write_text(f"could not write {CANARY}")

    assert {one.check for one in check(PLAN, good(), tmp_path)} == {"private"}


def test_a_message_that_names_no_tenant_must_be_kept() -> None:
    plan = replace(PLAN, strays=(Sending(0, SOURCE, ORIGINAL, celery=True),))

    assert {one.check for one in check(plan, good())} == {"accepted is kept"}


def test_two_that_conflict_wait_both_although_one_stands_only_where_its_answer_was_lost() -> None:
    seen, results = good(), [certiverse("1", score)[1:3] for score in (60, 90)]
    sendings = tuple(Sending(0, SOURCE, body, result) for body, result in results)
    plan = replace(PLAN, sittings=(replace(SITTING, kind="conflict", sendings=sendings),))
    record(seen)["history"].pop(0)
    for one in seen["events"]:
        one.update(state="held", reason="result_conflict")
    seen["status"]["tenants"]["steady"]["states"] = {"held": 2}

    assert {one.check for one in check(plan, seen)} == {"Rhythm says what the model says"}
    seen["tenants"]["steady"]["requests"].append(call(2, status=None))
    assert check(plan, seen) == []


def test_a_seed_is_a_schedule() -> None:
    assert schedule(7, 200, 10, 2) == schedule(7, 200, 10, 2)
    assert schedule(7, 200, 10, 2) != schedule(8, 200, 10, 2)


def test_every_personal_value_that_is_sent_can_be_recognised() -> None:
    for sitting in schedule(7, 400, 10, 2).sittings:
        for sending in sitting.sendings:
            assert CANARY.encode() in sending.body
        assert all(CANARY in json.dumps(each) for each in sitting.failures if "body" in each)


@pytest.mark.parametrize("name", BUGS)
def test_a_known_bug_can_be_put_back(name: str) -> None:
    """What is replaced stands where it stood; `python -m chaos.bugs` then shows that a run sees it."""
    for edit in BUGS[name]:
        assert edit["old"] in (ROOT / edit["file"]).read_text()
        assert edit["old"] != edit["new"]


def test_a_failing_run_is_cut_down_to_the_sittings_that_it_needs() -> None:
    plan = schedule(7, 200, 10, 2)
    guilty = {plan.sittings[3].who, plan.sittings[-2].who}

    small = minimise(plan, lambda part: guilty <= {one.who for one in part.sittings}, runs=200)

    assert {one.who for one in small.sittings} == guilty
