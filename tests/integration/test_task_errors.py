"""What no step of a task owns is told once, to the log and to Sentry, and without what it choked on."""

from typing import Any

import pytest
import sentry_sdk
from structlog.testing import capture_logs

from schemas.event import EventState, Reason
from tasks.process import process, process_tenant, sync
from tasks.steps.batch import each
from tasks.steps.claiming import _report_unknown, reported
from tasks.steps.job import Job
from tasks.steps.report import AttemptFailed, _told
from tests.events import certiverse
from tests.pipeline import TENANT, Pipeline
from worker.queues import PROCESS
from worker.sentry import _reported, without_values


@pytest.fixture
def sentry() -> Any:
    """What Sentry would get."""
    sent: list[Any] = []

    def keep(event: Any, hint: Any) -> None:
        sent.append(without_values(event, hint))

    _reported.clear()
    _told.clear()
    with sentry_sdk.isolation_scope():
        client = sentry_sdk.Client(
            dsn="http://key@127.0.0.1:1/1", before_send=keep, default_integrations=False, include_local_variables=False
        )
        sentry_sdk.get_isolation_scope().set_client(client)
        yield sent


def test_an_exception_outside_the_steps_is_told_once_and_without_its_message(sentry: list[Any]) -> None:
    with capture_logs() as logs, pytest.raises(AttemptFailed) as failed, reported(PROCESS, TENANT):
        raise KeyError("-".join(("MAR", "KED")))  # frames show this line
    assert [(line["event"], line["error"], line["task"], line["tenant"]) for line in logs] == [
        ("bug.caught", "KeyError", PROCESS, TENANT)
    ]
    assert str(failed.value) == "not finished: KeyError"
    assert failed.value.__suppress_context__
    (event,) = sentry
    assert event["exception"]["values"][0]["type"] == "KeyError"
    assert "MAR-KED" not in f"{logs}{sentry}"


def test_what_flower_is_told_of_every_day_is_no_bug(sentry: list[Any]) -> None:
    with capture_logs() as logs, pytest.raises(AttemptFailed, match="1 dead"), reported(PROCESS, TENANT):
        raise AttemptFailed("1 dead; invalid_json 1")
    assert (logs, sentry) == ([], [])


@pytest.mark.parametrize("task", [process, sync])
def test_a_task_under_either_name_tells(task: Any, sentry: list[Any], client: Any) -> None:
    """With a ledger that is not to be used: `er:acme:gate` is no hash."""
    client.set("er:acme:due:process", "MARKED")
    client.set("er:acme:due:sync", "MARKED")
    with capture_logs() as logs, pytest.raises(AttemptFailed):
        task.run(TENANT)
    assert "bug.caught" in [line["event"] for line in logs]
    assert len(sentry) == 1
    assert "MARKED" not in f"{logs}{sentry}"


def test_a_tenant_that_this_worker_does_not_know_is_told_of_once_and_its_work_waits(
    pipeline: Pipeline, sentry: list[Any]
) -> None:
    _report_unknown.cache_clear()
    id = pipeline.deliver(certiverse())
    pipeline.process()
    del pipeline.services.tenants.tenants[TENANT]
    with capture_logs() as logs:
        for _ in range(3):
            assert not process_tenant(pipeline.services, TENANT).states
    assert [line["event"] for line in logs] == ["tenant.unknown", "bug.caught"]
    assert len(sentry) == 1
    assert pipeline.event(id).state is EventState.READY
    assert pipeline.event(id).attempts == 0


def test_a_bug_that_many_events_meet_is_told_a_few_times_with_its_place_and_stage(
    pipeline: Pipeline, sentry: list[Any]
) -> None:
    id = pipeline.deliver(certiverse())
    work = pipeline.ledger.look(TENANT, id)
    assert work is not None

    def transform(jobs: list[Job]) -> None:
        def divide(_: Job) -> None:
            raise ZeroDivisionError("-".join(("MAR", "KED")))  # frames show this line

        each(jobs, divide)

    jobs = [Job(work, work.received_at) for _ in range(10_000)]
    with capture_logs() as logs:
        transform(jobs[:1])
    with capture_logs() as many:
        transform(jobs[1:])
    assert [(line["event"], line["event_id"], line["source"], line["reason"]) for line in logs] == [
        ("bug.caught", id, "certiverse", "internal_error")
    ]
    assert len(many) == 9_999
    assert {job.decision.reason for job in jobs if job.decision} == {Reason.INTERNAL_ERROR}
    assert 1 <= len(sentry) <= 3
    assert sentry[0]["fingerprint"][:2] == ["bug", "ZeroDivisionError"]
    assert (
        sentry[0]["tags"].items()
        >= {
            "event_id": id,
            "source": "certiverse",
            "stage": logs[0]["stage"],
            "reason": "internal_error",
        }.items()
    )
    assert "MAR-KED" not in str(sentry)


def test_of_what_waits_for_a_person_the_first_of_a_day_and_reason_is_told(
    open_one: Pipeline, sentry: list[Any]
) -> None:
    (first,) = open_one.run(certiverse(exam="CERT-9"))
    open_one.run(certiverse("dlv-2", exam="CERT-9"))
    _told.clear()  # another process
    open_one.run(certiverse("dlv-3", exam="CERT-9"))
    (told,) = sentry
    assert told["message"] == "the first held result today: unknown_exam"
    assert told["tags"].items() >= {"event_id": first.id, "stage": "consider", "tenant": TENANT}.items()
    open_one.run(b"no JSON")
    assert [one["tags"]["reason"] for one in sentry] == ["unknown_exam", "invalid_json"]
    (day,) = open_one.services.redis.keys(f"er:{TENANT}:told:held:unknown_exam:*")
    open_one.services.redis.delete(day)  # the next day
    _told.clear()
    open_one.run(certiverse("dlv-4", exam="CERT-9"))
    assert len(sentry) == 3


def test_an_event_that_ended_three_workers_is_told_like_any_other(pipeline: Pipeline, sentry: list[Any]) -> None:
    id = pipeline.deliver(certiverse())
    for token in ("one", "two", "three"):
        assert pipeline.ledger.claim(TENANT, token, 1, 0).works
        pipeline.due_now()
    with capture_logs() as logs, pytest.raises(AttemptFailed, match="1 dead; worker_killer 1"):
        process_tenant(pipeline.services, TENANT).report()
    assert [(line["event"], line["event_id"], line["reason"]) for line in logs] == [
        ("event.buried", id, "worker_killer")
    ]
    assert [one["tags"]["event_id"] for one in sentry] == [id]
    assert pipeline.event(id).state is EventState.DEAD
