"""The payloads that failed when the first edition was tried, byte for byte, from the receiver to Rhythm.

`tests/cases/` holds them. Rhythm has one open registration of the person in each, whose name is the case's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from schemas.outcome import Source
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at

CASES = Path(__file__).parents[1] / "cases"
DEAD, HELD, SYNCED = EventState.DEAD, EventState.HELD, EventState.SYNCED
TABLES = """
[[tenants.acme.exams]]
exam_id = "exam-2"
codes = ["DRILL-2", "PROV-2"]
threshold = 70
[tenants.acme.sources.drillster]
credentials = [ { kind = "basic", user = "drillster", password = "env:ACME_CERTIVERSE" } ]
third_party = "ACME"
[tenants.acme.sources.prov]
credentials = [ { kind = "basic", user = "prov", password = "env:ACME_CERTIVERSE" } ]
"""


@dataclass(frozen=True)
class Case:
    """A payload and how its event must end; `student`: whom the payload names, where that is not the case's name."""

    state: EventState
    reason: Reason | None = None
    #: Of the detail.
    says: str = ""
    source: Source = Source.CERTIVERSE
    #: What Rhythm says at the end.
    status: str = "registered"
    score: float | None = None
    student: str = ""


EXPECTED = {
    "w01-proctor-terminated": Case(HELD, Reason.INTEGRITY_REVIEW, "how the exam ended"),
    "w02-completed-9999": Case(SYNCED, status="passed", score=82.5),
    "w03-zero-against-zero": Case(HELD, Reason.RESULT_UNSCORED, "cut"),
    "w04-pass-below-the-cut": Case(HELD, Reason.RESULT_CONTRADICTORY, "passed, though the score is below the cut"),
    "w05-passfail-twice": Case(HELD, Reason.RESULT_CONTRADICTORY, "passFail: present twice, with different values"),
    "w06-PassFail-in-pascal-case": Case(HELD, Reason.RESULT_CONTRADICTORY, "failed, though the score reaches the cut"),
    "w08-prov-75-of-200": Case(HELD, Reason.RESULT_UNSCORED, "points, and a percentage", Source.PROV),
    "d01-drillster-TestCompleted": Case(HELD, Reason.RESULT_UNSCORED, "eventType", Source.DRILLSTER),
    "l01-date-in-figures": Case(DEAD, Reason.INVALID_PAYLOAD, "examDate: not an ISO 8601 date and time", Source.PROV),
    "l02-customData-name-twice": Case(SYNCED, status="passed", score=82.5),
    "r01-0001-01-01-plus-0200": Case(SYNCED, status="passed", score=82.5),
    "r02-half-an-emoji-in-firstName": Case(SYNCED, status="passed", score=82.5),
    "r03-isRescore-with-a-space": Case(SYNCED, status="passed", score=82.5),
    "r04-prov-passed-and-result": Case(SYNCED, source=Source.PROV, status="passed", score=78.5),
    "r06-prov-examId-and-examCode": Case(SYNCED, source=Source.PROV, status="passed", score=78.5, student="r04b"),
}


@pytest.fixture
def acme(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> Iterator[Pipeline]:
    """The tenant of the sandbox, with all three sources."""
    with pipeline_at(tmp_path, rhythm, more=TABLES) as built:
        yield built


def deliver(acme: Pipeline, name: str, case: Case) -> str:
    """Seed the case's registration and send its payload through. Returns the event's id."""
    who = case.student or name.partition("-")[0]
    exam = "exam-1" if case.source is Source.CERTIVERSE else "exam-2"
    open_one = {"id": f"reg-{who}", "exam_id": exam, "student_id": f"stu-{who}", "status": "registered"}
    acme.rhythm.seed(ORG, [open_one | {"email_address": f"{who}@example.org", "date": "2026-01-05T00:00:00Z"}])
    id = acme.deliver((CASES / f"{name}.json").read_bytes(), case.source)
    acme.process()
    acme.sync()
    return id


@pytest.mark.parametrize("name", EXPECTED)
def test_a_case_ends_as_it_must(acme: Pipeline, name: str) -> None:
    case = EXPECTED[name]
    event = acme.event(deliver(acme, name, case))
    assert (event.state, event.reason) == (case.state, case.reason)
    assert case.says in (event.detail or "")
    registration = acme.registration(f"reg-{case.student or name.partition('-')[0]}")
    assert (registration["status"], registration.get("score")) == (case.status, case.score)
    assert "9999" not in str(registration.get("exam_date"))


@pytest.mark.parametrize(
    ("name", "status"),
    [("w04-pass-below-the-cut", "passed"), ("w05-passfail-twice", "passed"), ("w06-PassFail-in-pascal-case", "failed")],
)
def test_a_contradiction_accepted_is_written_with_the_verdict_of_the_platform(
    acme: Pipeline, name: str, status: str
) -> None:
    id = deliver(acme, name, EXPECTED[name])
    acme.ledger.replay(TENANT, id, "operator", {"accept": [Reason.RESULT_CONTRADICTORY]})
    acme.process()
    acme.sync()
    assert acme.event(id).result == "written"
    assert acme.registration(f"reg-{name[:3]}")["status"] == status


def test_every_case_has_its_expectation() -> None:
    assert {path.stem for path in CASES.glob("[wdlr]*.json")} >= set(EXPECTED)
