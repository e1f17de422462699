"""What no step of a task owns is told once, to the log and to Sentry, and without what it choked on."""

from typing import Any

import pytest
import sentry_sdk
from structlog.testing import capture_logs

from schemas.event import EventState
from tasks.process import process, process_tenant, sync
from tasks.steps.claiming import AttemptFailed, _report_unknown, reported
from tests.events import certiverse
from tests.pipeline import TENANT, Pipeline
from worker.queues import PROCESS
from worker.telemetry import _without_values


@pytest.fixture
def sentry() -> Any:
    """What Sentry would get."""
    sent: list[Any] = []

    def keep(event: Any, hint: Any) -> None:
        sent.append(_without_values(event, hint))

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
