"""Hints: the ledger's scripts put Celery's own messages on its queue, together with what they are about."""

import base64
import json
from typing import Any

import redis

from tests.events import certiverse
from tests.pipeline import TENANT, Pipeline
from worker import celery, queues
from worker.celery_broker import _message


def queued(client: "redis.Redis") -> list[dict[str, Any]]:
    """The messages that wait for a worker, the oldest first."""
    return [json.loads(entry) for entry in client.lrange(queues.HINT_QUEUE, 0, -1)][::-1]


def body(message: dict[str, Any]) -> Any:
    told = message["body"]
    encoded = message["properties"].get("body_encoding") == "base64"
    return json.loads(base64.b64decode(told) if encoded else told)


def test_a_hint_says_what_celerys_own_message_says(pipeline: Pipeline) -> None:
    pipeline.deliver(certiverse())
    (hint,) = queued(pipeline.services.redis)
    pipeline.services.redis.delete(queues.HINT_QUEUE)
    celery.app.send_task(queues.PROCESS, args=[TENANT], queue=queues.HINT_QUEUE)
    (own,) = queued(pipeline.services.redis)
    assert body(hint) == body(own)
    assert hint["headers"]["id"] == hint["properties"]["correlation_id"] == hint["headers"]["root_id"]
    ours = {"headers": {"id", "root_id", "origin"}, "properties": {"correlation_id", "delivery_tag", "reply_to"}}
    for part, differing in ours.items():
        assert hint[part].keys() <= own[part].keys()
        differs = {name for name, value in hint[part].items() if value != own[part][name]}
        # Celery names the task's own limits once the app is complete; where none are named, the worker takes the same.
        assert differs - {"timelimit"} == differing
    assert (hint["content-type"], hint["content-encoding"]) == (own["content-type"], own["content-encoding"])
    assert _message(json.dumps(hint), ("id", "task")) == hint, "the guarded transport lets it pass"


def test_there_is_the_task_that_a_hint_names_and_the_one_that_earlier_releases_named() -> None:
    assert {queues.PROCESS, queues.SYNC} <= celery.app.tasks.keys()


def test_no_two_hints_have_one_id(pipeline: Pipeline) -> None:
    for number in range(20):
        pipeline.deliver(certiverse(f"dlv-{number}"))
        pipeline.ledger.claim(TENANT, f"token-{number}", 1, 0)
    ids = [message["properties"]["delivery_tag"] for message in queued(pipeline.services.redis)]
    assert len(ids) == len(set(ids)) >= 20


def test_while_one_hint_is_under_way_no_other_is_sent(pipeline: Pipeline) -> None:
    for number in range(20):
        pipeline.deliver(certiverse(f"dlv-{number}"))
    assert len(queued(pipeline.services.redis)) == 1


def test_a_task_that_goes_on_claiming_leaves_the_hint_under_way_alone(pipeline: Pipeline) -> None:
    """Else each of its claims would send another, and another tenant would wait behind them all."""
    for number in range(10):
        pipeline.deliver(certiverse(f"dlv-{number}"))
    pipeline.services.redis.delete(queues.HINT_QUEUE)  # a worker took it
    for _ in range(5):
        assert pipeline.ledger.claim(TENANT, "token", 1, 2).works
    assert len(queued(pipeline.services.redis)) == 1


def test_a_tasks_own_hints_are_no_other_tenants(pipeline: Pipeline) -> None:
    for number in range(4):
        pipeline.deliver(certiverse(f"dlv-{number}"))
    pipeline.services.redis.delete(queues.HINT_QUEUE)
    assert not pipeline.ledger.claim(TENANT, "token", 1, 2).others
    assert not pipeline.ledger.claim(TENANT, "token", 1, 2).others, "its own is queued by now"
    celery.app.send_task(queues.PROCESS, args=["beta"], queue=queues.HINT_QUEUE)
    assert pipeline.ledger.claim(TENANT, "token", 1, 2).others
