"""What was matched, ordered or written wrongly when it was tried: the payloads byte for byte.

And more of the same kinds. The exam map is the sandbox's: exam-1 takes `scaled`, exam-2 has a threshold of 70.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import ROOT
from tests.stages import on, replay, stands
from tests.tenants import ENVIRON, write_tenants
from worker.errors import ConfigurationError
from worker.ledger import trace
from worker.ledger.audit.books import books
from worker.tenants import load_tenants

CASES = Path(__file__).parents[1] / "cases"
HELD, READY, SYNCED = EventState.HELD, EventState.READY, EventState.SYNCED
SANDBOX = (ROOT / "sandbox" / "tenants.toml").read_text()
SOURCES = SANDBOX.partition("[tenants.acme.sources.drillster]")[2].partition("[[tenants")[0]
EXAM_2 = SANDBOX.rpartition("[[tenants.acme.exams]]")[2]
TABLES = f"[[tenants.acme.exams]]{EXAM_2}[tenants.acme.sources.drillster]{SOURCES}"
for secret in ("_DRILLSTER", "_PROV"):
    TABLES = TABLES.replace(secret, "_CERTIVERSE")


@pytest.fixture
def acme(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> Iterator[Pipeline]:
    """The sandbox's tenant. Its ledger agrees with itself at the end."""
    with pipeline_at(tmp_path, rhythm, more=TABLES) as built:
        yield built
    assert books(client, TENANT).differences == ()


def open_one(case: str, **more: Any) -> dict[str, Any]:
    """The registration that Rhythm has beforehand."""
    return {
        "id": f"reg-{case}",
        "exam_id": "exam-1",
        "student_id": f"stu-{case}",
        "status": "registered",
        "email_address": f"{case}@example.org",
        "date": "2026-01-05T00:00:00Z",
    } | more


def sent(case: str) -> bytes:
    (path,) = CASES.glob(f"{case}*.json")
    return path.read_bytes()


def through(acme: Pipeline, body: bytes, *there: dict[str, Any], source: Source = Source.CERTIVERSE) -> Event:
    """Seed, deliver, process, sync."""
    acme.rhythm.seed(ORG, there)
    return on(acme, acme.deliver(body, source))


def searches(acme: Pipeline) -> int:
    return sum(call["kind"] == "search" for call in acme.rhythm.requests())


def said(acme: Pipeline, id: str) -> tuple[str, Any]:
    now = acme.registration(id)
    return now["status"], now.get("score")


def test_w07_a_score_is_not_rounded_up_to_the_pass_mark(acme: Pipeline) -> None:
    event = through(acme, sent("w07"), open_one("w07", exam_id="exam-2"), source=Source.DRILLSTER)
    assert stands(event) == (SYNCED, "written")
    assert said(acme, "reg-w07") == ("failed", 69.99)


def test_w09_a_score_that_the_map_names_and_the_result_lacks_waits_for_a_person(acme: Pipeline) -> None:
    event = through(acme, sent("w09"), open_one("w09"))
    assert stands(event) == (HELD, Reason.SCORE_MISSING)
    assert "scaled" in str(event.detail)
    assert stands(replay(acme, event.id, accept=["score_missing"])) == (SYNCED, "written")
    assert said(acme, "reg-w09") == ("passed", None)


def test_a_score_of_ours_is_removed_with_the_verdict_that_it_stood_beside(acme: Pipeline) -> None:
    through(acme, certiverse(passed=False, score=65), registration())
    rescore = through(acme, certiverse(score=None, rescore=True))
    assert (stands(rescore), said(acme, "reg-1")) == ((HELD, Reason.SCORE_MISSING), ("failed", 65))
    assert stands(replay(acme, rescore.id, accept=["score_missing"])) == (SYNCED, "written")
    assert said(acme, "reg-1") == ("passed", None)
    change = acme.rhythm.record(ORG, "reg-1")["history"][-1]["changes"]
    assert {"status", "score"} <= change.keys(), "in one write"
    later = through(acme, certiverse(score=91, rescore=True, percent=91))
    assert stands(replay(acme, later.id, accept=["result_conflict"])) == (SYNCED, "written")
    assert said(acme, "reg-1") == ("passed", 91)


def test_a_write_without_a_score_whose_reply_was_lost_is_settled_by_reading(acme: Pipeline) -> None:
    through(acme, certiverse(passed=False, score=65), registration())
    rescore = through(acme, certiverse(score=None, rescore=True))
    acme.rhythm.fault("apply_then_lose", kind="patch")
    replay(acme, rescore.id, accept=["score_missing"])
    assert stands(on(acme, rescore.id)) == (SYNCED, "written")
    assert len(acme.rhythm.record(ORG, "reg-1")["history"]) == 2


def test_a_score_of_another_hand_needs_an_answer_of_its_own(acme: Pipeline) -> None:
    event = through(acme, certiverse(score=None), registration(score=50))
    event = replay(acme, event.id, accept=["score_missing"])
    assert (stands(event), said(acme, "reg-1")) == ((HELD, Reason.REGISTRATION_SETTLED), ("registered", 50))
    assert stands(replay(acme, event.id, accept=["registration_settled"])) == (SYNCED, "written")
    assert said(acme, "reg-1") == ("passed", None)


def test_where_the_map_names_no_score_only_one_that_would_be_left_needs_a_person(acme: Pipeline) -> None:
    body = {"CandidateID": "stu-p", "ExamCode": "PROV-2", "Result": "Pass", "ExamDate": "2026-11-20T11:00:00Z"}
    bare = json.dumps(body).encode()
    event = through(acme, bare, open_one("p", exam_id="exam-2"), source=Source.PROV)
    assert (stands(event), said(acme, "reg-p")) == ((SYNCED, "written"), ("passed", None))
    other = json.dumps(body | {"CandidateID": "stu-q"}).encode()
    event = through(acme, other, open_one("q", exam_id="exam-2", score=40), source=Source.PROV)
    assert (stands(event), said(acme, "reg-q")) == ((HELD, Reason.SCORE_MISSING), ("registered", 40))


def test_w10_a_score_that_no_platform_sends_is_refused_at_start(tmp_path: Path) -> None:
    path = write_tenants(tmp_path, "http://127.0.0.1:1")
    case = (CASES / "w10-typo-in-the-map.toml").read_text()
    path.write_text(path.read_text().partition("[[tenants.acme.exams]]")[0] + case)
    with pytest.raises(ConfigurationError, match=r"exams\.0\.score: .* scalled; there are: .*scaled"):
        load_tenants(path, ENVIRON)


def test_w11_an_address_that_only_looks_the_same_is_another(acme: Pipeline) -> None:
    event = through(acme, sent("w11"), open_one("w11", email_address="kay-w11@example.org"))
    assert stands(event) == (READY, Reason.REGISTRATION_NOT_FOUND)
    assert said(acme, "reg-w11") == ("registered", None)


def test_m01_the_address_is_looked_for_as_it_was_sent(acme: Pipeline) -> None:
    acme.rhythm.options(search_text="exact")
    case = json.loads(sent("m01"))
    body = json.loads(certiverse(registration=None, student=None))
    body |= {name: body[name] | told for name, told in case["event"].items()}
    event = through(acme, json.dumps(body).encode(), case["registration"])
    assert (stands(event), searches(acme)) == ((SYNCED, "written"), 1)


@pytest.mark.parametrize(
    ("ours", "theirs", "calls"),
    [
        ("Jo@Example.org", "jo@example.org", 2),
        ("jo@example.org", "jo@example.org", 1),
        ("Jos\u00e9@Example.org", "jose\u0301@example.org", 3),
    ],
)
def test_and_then_in_its_other_spellings_until_somebody_is_found(
    acme: Pipeline, ours: str, theirs: str, calls: int
) -> None:
    acme.rhythm.options(search_text="exact")
    there = registration(email_address=theirs, student_id="")
    event = through(acme, certiverse(registration=None, student=None, email=ours), there)
    assert (stands(event), searches(acme)) == ((SYNCED, "written"), calls)


def test_m02_a_registration_of_the_same_day_is_in_time(acme: Pipeline) -> None:
    event = through(acme, sent("m02"), open_one("m02", date="2026-11-20T10:00:00Z"))
    assert (stands(event), said(acme, "reg-m02")) == ((SYNCED, "written"), ("passed", 82.5))


def test_one_made_later_is_not_and_the_detail_names_the_days(acme: Pipeline) -> None:
    event = through(acme, sent("m02"), open_one("m02", date="2026-11-21T10:00:00Z"))
    assert stands(event) == (READY, Reason.REGISTRATION_NOT_FOUND)
    assert "reg-m02 was made on 2026-11-21, after the sitting on 2026-11-20" in str(event.detail)


def test_m03_a_result_that_names_nobody_is_held_at_once_and_no_call_is_made(acme: Pipeline) -> None:
    event = through(acme, sent("m03"), open_one("m03"))
    assert stands(event) == (HELD, Reason.NOBODY_NAMED)
    assert acme.rhythm.requests() == []
    assert stands(replay(acme, event.id, registration="reg-m03")) == (SYNCED, "written")


def test_a_third_party_that_is_not_the_configured_one_names_nobody(acme: Pipeline) -> None:
    body = json.loads(sent("w07"))
    body["user"]["thirdPartyIds"][0]["thirdParty"] = "OTHER"
    event = through(acme, json.dumps(body).encode(), source=Source.DRILLSTER)
    assert stands(event) == (HELD, Reason.NOBODY_NAMED)
    assert "thirdPartyIds of OTHER, and third_party names ACME" in str(event.detail)


@pytest.mark.parametrize(
    "known", ["jos\u00e9-m04@example.org", "JOS\u00c9-m04@Example.org", "jose\u0301-m04@example.org"]
)
def test_m04_one_address_however_its_letters_are_composed(acme: Pipeline, known: str) -> None:
    event = through(acme, sent("m04"), open_one("m04", email_address=known))
    assert stands(event) == (SYNCED, "written")
    at = acme.services
    for spelled in ("jos\u00e9-m04@example.org", "jose\u0301-M04@example.org"):
        name = trace.name_of(at.identity, TENANT, spelled)
        assert trace.of_candidate(at.redis, TENANT, name) == [event.id]


def test_d02_a_rescore_of_another_person_replaces_nothing_and_waits(acme: Pipeline) -> None:
    ana = through(acme, sent("d02-1"), open_one("d02b"))
    assert stands(ana) == (READY, Reason.REGISTRATION_NOT_FOUND)
    ben = through(acme, sent("d02-2"))
    assert stands(ben) == (HELD, Reason.RESULT_CONFLICT)
    assert ana.id in str(ben.detail)
    acme.rhythm.seed(ORG, [open_one("d02a")])
    assert stands(on(acme, ana.id)) == (SYNCED, "written")
    assert said(acme, "reg-d02a") == ("passed", 82.5)
    assert stands(replay(acme, ben.id, accept=["result_conflict"])) == (SYNCED, "written")
    assert said(acme, "reg-d02b") == ("passed", 82.5)


def test_whichever_comes_first_the_second_waits(acme: Pipeline) -> None:
    ben = through(acme, sent("d02-2"), open_one("d02a"), open_one("d02b"))
    ana = through(acme, sent("d02-1"))
    assert (stands(ben), stands(ana)) == ((SYNCED, "written"), (HELD, Reason.RESULT_CONFLICT))
    assert stands(replay(acme, ana.id, accept=["result_conflict"])) == (SYNCED, "written")
    assert said(acme, "reg-d02a") == ("passed", 82.5)


def test_a_rescore_of_the_same_person_with_another_address_replaces_the_original(acme: Pipeline) -> None:
    through(acme, certiverse(passed=False, score=60), registration())
    rescore = through(acme, certiverse(rescore=True, email="moved@example.org"))
    assert (stands(rescore), said(acme, "reg-1")) == ((SYNCED, "written"), ("passed", 82.5))


def test_two_people_of_one_address_are_told_apart_by_their_ids(acme: Pipeline) -> None:
    through(acme, certiverse(passed=False, score=60), registration(), registration("reg-2", student_id="stu-2"))
    rescore = through(acme, certiverse(registration="reg-2", student="stu-2", rescore=True))
    assert stands(rescore) == (HELD, Reason.RESULT_CONFLICT)
    assert said(acme, "reg-1") == ("failed", 60)


def drilled(student: str) -> bytes:
    """An attempt whose result says who only by third party."""
    body = json.loads(sent("w07"))
    body["user"] = {"thirdPartyIds": [{"id": student, "thirdParty": "ACME"}]}
    del body["eventId"]
    return json.dumps(body).encode()


def test_the_same_result_of_another_person_is_no_duplicate(acme: Pipeline) -> None:
    there = [open_one(name, exam_id="exam-2") for name in ("a", "b")]
    ana = through(acme, drilled("stu-a"), *there, source=Source.DRILLSTER)
    ben = through(acme, drilled("stu-b"), source=Source.DRILLSTER)
    assert (stands(ana), stands(ben)) == ((SYNCED, "written"), (HELD, Reason.RESULT_CONFLICT))
    assert stands(replay(acme, ben.id, accept=["result_conflict"])) == (SYNCED, "written")
    assert said(acme, "reg-b") == ("failed", 69.99)
