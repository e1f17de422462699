"""Many look-ups for one exam are answered by one search of its open registrations, and both ways choose alike."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.event import EventState, Reason
from schemas.outcome import Candidate, ExamOutcome, Source
from tasks import process, sync
from tasks.steps.batch import ExamSearch
from tasks.steps.claiming import GO_ON_SECONDS
from tasks.steps.job import Job, undecided
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from tests.running import wait_until
from tests.stages import INTENDED, WRITTEN, begun, calls, finish, go_on, held, kinds, standing, stands
from worker.exam_map import Exam
from worker.ledger.work import DeliveryRecord, Work
from worker.queues import HINT_QUEUE

EXAM = Exam(exam_id="exam-1", codes=("CERT-1",))
RECEIVED = datetime(2026, 5, 5, tzinfo=UTC)
SETTINGS = settings(
    max_examples=1000 if os.environ.get("EXAMRELAY_FULL") == "1" else 30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class World:
    """What Rhythm has and how it searches; whose results come; what the ledger knows of both."""

    registrations: list[dict[str, Any]]
    people: list[tuple[Candidate, datetime | None]]
    options: dict[str, Any]
    #: Places of registrations that are passed by now, which reads do not show yet; whether we have seen that.
    stale: dict[int, bool] = field(default_factory=dict)
    #: Places of people -> of the registration that their delivery has written to.
    wrote: dict[int, int] = field(default_factory=dict)


SPELLED = [
    "{}@Example.org",
    "{}@example.org",
    "{}@EXAMPLE.org",
    " {}@example.org",
    "gra.{}@example.org",
    "é{}@x",
    "e\u0301{}@x",
]
NAMES = st.sampled_from(["ada", "Ada", "eve"])
ADDRESSES = st.one_of(st.none(), st.just(""), st.builds(str.format, st.sampled_from(SPELLED), NAMES))
STUDENTS = st.sampled_from([None, "", *[f"stu-{number}" for number in range(1, 9)] * 2, "STU-1", "."])
REGISTRATIONS = st.fixed_dictionaries(
    {
        "status": st.sampled_from(
            ["registered"] * 12 + ["passed", "failed", "no show", "draft", "cancelled", "expired"]
        ),
        "exam_id": st.sampled_from(["exam-1"] * 9 + ["exam-2"]),
        "student_id": STUDENTS,
        "email_address": ADDRESSES,
        "date": st.sampled_from([None, "2026-04-01", "2026-05-04T08:00:00Z", "2026-05-04T15:00:00Z", "2026-05-05"]),
        "exam_date": st.sampled_from([None, None, "2026-05-04", "2026-05-04T18:00:00Z", "2026-04-01", "2026-06-01"]),
    }
)
COMPLETED = st.sampled_from([None, datetime(2026, 5, 4, tzinfo=UTC), datetime(2026, 5, 4, 12, 30, tzinfo=UTC)])
STU_1 = Candidate(student_id="stu-1")
CANDIDATES = st.builds(Candidate, student_id=STUDENTS, email_sent=ADDRESSES)
OPTIONS = st.fixed_dictionaries(
    {
        "search_text": st.sampled_from(["ignore_case", "contains", "exact"]),
        "page_size": st.sampled_from([1, 3, 100, 100]),
        "sparse_pages": st.booleans(),
        "cursor": st.sampled_from(["string", "object"]),
        "nothing_found": st.sampled_from(["404", "empty"]),
    }
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    registrations = draw(st.lists(REGISTRATIONS, min_size=4, max_size=12))
    people = draw(st.lists(st.tuples(CANDIDATES, COMPLETED), min_size=10, max_size=14))
    places = st.integers(0, len(registrations) - 1)
    return World(
        [{"id": f"reg-{place}"} | one for place, one in enumerate(registrations)],
        people,
        draw(OPTIONS),
        draw(st.dictionaries(places, st.booleans(), max_size=2)),
        draw(st.dictionaries(st.integers(0, len(people) - 1), places, max_size=2)),
    )


def case(*there: dict[str, Any], who: Candidate, **more: Any) -> World:
    """One person whose result was completed at 12:30, and ten others who are not registered."""
    others = [Candidate(student_id="stu-x")] * 10
    whole = {"exam_id": "exam-1", "status": "registered", "student_id": "stu-1", "date": "2026-04-01"}
    registrations = [{"id": f"reg-{place}"} | whole | one for place, one in enumerate(there)]
    at = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
    return World(registrations, [(one, at) for one in [who, *others]], **{"options": {}} | more)


def given_to(pipeline: Pipeline, world: World) -> None:
    pipeline.rhythm.reset()
    pipeline.rhythm.options(**world.options)
    pipeline.rhythm.seed(ORG, world.registrations)
    pipeline.services.search_costs.clear()
    client = pipeline.services.redis
    client.flushall()
    for place, known in world.stale.items():
        if world.registrations[place]["status"] == "registered":
            pipeline.rhythm.edit(ORG, f"reg-{place}", status="passed")
            pipeline.rhythm.fault("stale", ids=[f"reg-{place}"], times=None)
            if known:
                client.hset(f"er:{TENANT}:registration:reg-{place}", "sys_version", 2)
    for person, place in world.wrote.items():
        client.hset(f"er:{TENANT}:registration:reg-{place}", "event", f"evt-{person}")
        client.hset(f"er:{TENANT}:event:evt-{person}", "delivery", f"dlv-{person}")


def jobs_of(world: World) -> list[Job]:
    return [_job(world, number, *person) for number, person in enumerate(world.people)]


def _job(world: World, number: int, candidate: Candidate, completed: datetime | None) -> Job:
    wrote = world.wrote.get(number)
    known = DeliveryRecord() if wrote is None else DeliveryRecord("v", f"reg-{wrote}", "1")
    work = Work(
        id=f"evt-{number}-now",
        state=EventState.READY,
        source=Source.CERTIVERSE,
        path="",
        received_at=RECEIVED,
        attempts=0,
        first_attempt_at=None,
        answers={},
        problem=None,
        delivery=f"dlv-{number}",
        version="w",
        intent=None,
        sealed=b"",
        delivery_record=known,
    )
    outcome = ExamOutcome(
        source=Source.CERTIVERSE,
        delivery=f"dlv-{number}",
        exam_codes=("CERT-1",),
        candidate=candidate,
        completed_at=completed,
    )
    return Job(work, RECEIVED, outcome, EXAM)


def resolved(pipeline: Pipeline, jobs: list[Job]) -> list[Any]:
    """For each the registration, as it was read, or how it was decided. How long it waits is drawn by lot."""
    sync.resolve(sync.begin(pipeline.services, TENANT, "task"), jobs)
    return [
        job.registration or (job.decision and (job.decision.move, job.decision.reason, job.decision.detail))
        for job in jobs
    ]


def test_a_search_of_the_exam_and_single_look_ups_choose_the_same_registration_or_hold_for_the_same_reason(
    pipeline: Pipeline,
) -> None:
    seen: Counter[str] = Counter()

    @SETTINGS
    @given(worlds())
    @example(case({"status": "passed"}, {}, who=STU_1, wrote={0: 0}))
    @example(case({}, {"status": "no show"}, who=STU_1, stale={0: True}))
    @example(case({"date": "2026-05-04T15:00:00Z"}, {"status": "failed"}, who=STU_1))
    @example(case({}, *[{"student_id": f"s-{n}"} for n in range(12)], {}, who=STU_1, options={"page_size": 1}))
    @example(
        case(
            {"status": "passed", "email_address": "A@x.org"},
            {"email_address": "a@x.org"},
            who=Candidate(email_sent="A@x.org"),
            options={"search_text": "exact"},
        )
    )
    def check(world: World) -> None:
        given_to(pipeline, world)
        singly = [resolved(pipeline, [job])[0] for job in jobs_of(world)]
        together = jobs_of(world)
        assert resolved(pipeline, together) == singly
        seen.update("searched" if job.searched else "looked up" for job in together)
        seen.update(type(choice).__name__ for choice in singly)

    check()
    assert min(seen[name] for name in ("searched", "looked up", "Registration", "tuple")) > 5, seen


def people(count: int, by: str = "student", first: int = 1) -> tuple[list[dict[str, Any]], list[bytes]]:
    """A registration and a result each, which has no id of it."""
    numbers = range(first, first + count)
    student = {number: f"stu-{number}" if by == "student" else None for number in numbers}
    return (
        [registration(f"reg-{n}", student_id=f"stu-{n}", email_address=f"p{n}@example.org") for n in numbers],
        [certiverse(f"dlv-{n}", None, student=student[n], email=f"p{n}@example.org") for n in numbers],
    )


def ran(pipeline: Pipeline, there: Sequence[dict[str, Any]], bodies: Sequence[bytes]) -> list[Any]:
    pipeline.rhythm.seed(ORG, there)
    return [stands(event) for event in pipeline.run(*bodies)]


def batch(pipeline: Pipeline, searches: dict[str, ExamSearch]) -> None:
    """One batch of a task that has found `searches` before."""
    run = sync.begin(pipeline.services, TENANT, "task", searches=searches)
    jobs = process.process_batch(run, pipeline.ledger.claim(TENANT, "task", 100, 0))
    decisions = [job.decision for job in jobs if job.decision]
    pipeline.ledger.apply(TENANT, "task", decisions)


@pytest.mark.usefixtures("balanced")
@pytest.mark.parametrize("by", ["student", "e-mail"])
def test_many_look_ups_for_an_exam_cost_one_search_for_all_batches_of_a_task(pipeline: Pipeline, by: str) -> None:
    there, bodies = people(120, by)
    pipeline.rhythm.seed(ORG, there)
    ids, searches = [pipeline.deliver(body) for body in bodies], dict[str, ExamSearch]()
    batch(pipeline, searches)
    batch(pipeline, searches)
    assert standing(pipeline, *ids) == [WRITTEN] * 120
    assert kinds(pipeline) == ["search", "search", "batch", "batch"]


@pytest.mark.usefixtures("balanced")
def test_a_task_goes_on_for_as_long_as_it_has_searched(pipeline: Pipeline) -> None:
    pipeline.rhythm.fault("latency", kind="search", ms=GO_ON_SECONDS * 1000)
    there, bodies = people(120)
    pipeline.rhythm.seed(ORG, there)
    ids = [pipeline.deliver(body) for body in bodies]
    pipeline.services.redis.delete(HINT_QUEUE)
    pipeline.sync()
    assert standing(pipeline, *ids) == [WRITTEN] * 120, "the second batch, too, though two seconds are over"
    assert kinds(pipeline) == ["search", "search", "batch", "batch"]


@pytest.mark.usefixtures("balanced")
def test_who_is_not_found_there_is_looked_up_alone_and_ends_as_alone(pipeline: Pipeline) -> None:
    there, bodies = people(16)
    there[0] |= {"status": "failed"}
    there[1] |= {"student_id": "stu-x", "email_address": "x@example.org"}
    there[2] |= {"date": "2026-05-04T15:00:00Z"}
    there.append(registration("reg-4b", student_id="stu-4"))
    there.append(registration("reg-3b", student_id="stu-3", status="no show"))
    stood = ran(pipeline, there, bodies)
    assert stood[:4] == [
        held(Reason.REGISTRATION_SETTLED),
        (EventState.READY, Reason.REGISTRATION_NOT_FOUND),
        held(Reason.REGISTRATION_SETTLED),
        held(Reason.REGISTRATION_AMBIGUOUS),
    ]
    assert stood[4:] == [WRITTEN] * 12
    assert (calls(pipeline, "search"), calls(pipeline, "student_exam")) == (2, 4)


@pytest.mark.usefixtures("balanced")
def test_nobody_named_is_nobody_although_registrations_have_no_address(pipeline: Pipeline) -> None:
    there, bodies = people(12)
    there.append(registration("reg-99", student_id="", email_address=""))
    stood = ran(pipeline, there, [*bodies, certiverse("dlv-99", None, student=None, email="")])
    assert stood == [WRITTEN] * 12 + [held(Reason.NOBODY_NAMED)]
    assert pipeline.registration("reg-99")["status"] == "registered"


@pytest.mark.usefixtures("balanced")
def test_a_search_takes_no_more_calls_than_the_look_ups_and_is_not_tried_again_when_it_did_not_pay(
    pipeline: Pipeline,
) -> None:
    pipeline.rhythm.options(page_size=1)
    there, bodies = people(12)
    others, _ = people(40, first=100)
    assert ran(pipeline, others + there, bodies) == [WRITTEN] * 12
    assert (calls(pipeline, "search"), calls(pipeline, "student_exam")) == (12, 12)
    more, results = people(12, first=20)
    assert ran(pipeline, more, results) == [WRITTEN] * 12
    assert (calls(pipeline, "search"), calls(pipeline, "student_exam")) == (12, 24)


@pytest.mark.usefixtures("balanced")
def test_a_search_that_fails_alone_is_replaced_by_single_look_ups(pipeline: Pipeline) -> None:
    there, bodies = people(12)
    pipeline.rhythm.fault("status", kind="search", status=500, times=None)
    assert ran(pipeline, there, bodies) == [WRITTEN] * 12
    assert calls(pipeline, "search") == 1
    assert calls(pipeline, "student_exam") == 12


@pytest.mark.usefixtures("balanced")
def test_a_short_pause_of_the_gate_does_not_cost_the_pages_before(pipeline: Pipeline) -> None:
    pipeline.rhythm.options(page_size=3)
    there, bodies = people(12)
    pipeline.rhythm.fault("status", kind="search", status=429, headers={"Retry-After": "1"}, skip=2)
    assert ran(pipeline, there, bodies) == [WRITTEN] * 12
    assert (calls(pipeline, "search"), calls(pipeline, "student_exam")) == (5, 0)


@pytest.mark.usefixtures("balanced")
def test_a_throttled_search_does_not_keep_events_from_being_looked_up_alone(pipeline: Pipeline) -> None:
    there, bodies = people(12)
    pipeline.rhythm.fault("status", kind="search", status=429, headers={"Retry-After": "0"}, times=None)
    pipeline.rhythm.seed(ORG, there)
    ids = [pipeline.deliver(body) for body in bodies]

    def written() -> bool:
        go_on(pipeline)
        return standing(pipeline, *ids) == [WRITTEN] * 12

    wait_until(written, 60, "every result written")
    assert calls(pipeline, "search") == 2


@pytest.mark.usefixtures("balanced")
def test_a_registration_that_was_edited_after_the_search_is_read_anew(pipeline: Pipeline) -> None:
    there, bodies = people(12)
    pipeline.rhythm.seed(ORG, there)
    ids = [pipeline.deliver(body) for body in bodies]
    run, jobs = begun(pipeline, INTENDED, token="task")
    pipeline.rhythm.edit(ORG, "reg-1", notes="called")
    sync.read_answers(run, undecided(jobs), sync.write(run, undecided(jobs)))
    finish(run, jobs)
    pipeline.due_now()
    batch(pipeline, run.searches)
    assert standing(pipeline, *ids) == [WRITTEN] * 12
    assert (calls(pipeline, "search"), calls(pipeline, "student_exam")) == (1, 1)
