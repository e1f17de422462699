"""The naive pipeline on another queue: taskiq on Redis streams, aiohttp, everything asynchronous.

Run: `taskiq worker bench.taskiq_naive:broker`. It promises as little as bench/naive.py.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import aiohttp
import redis.asyncio
from taskiq import SimpleRetryMiddleware, TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

from bench.naive import IDENTITY_SECONDS, REDIS_URL, RHYTHM_URL, values
from schemas.certiverse import ExamResult

QUEUE = "taskiq"

broker = RedisStreamBroker(REDIS_URL, queue_name=QUEUE, xread_count=100).with_middlewares(SimpleRetryMiddleware())
_open: dict[str, Any] = {}


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def _start(_: TaskiqState) -> None:
    _open["seen"] = redis.asyncio.Redis.from_url(REDIS_URL, max_connections=100)
    _open["rhythm"] = aiohttp.ClientSession(
        headers={"Authorization": "Bearer sandbox-key"}, timeout=aiohttp.ClientTimeout(15), raise_for_status=True
    )


@broker.task(retry_on_error=True, max_retries=5)
async def sync(payload: dict[str, Any]) -> None:
    """Validate, deduplicate, read the registration, write what differs."""
    result = ExamResult.model_validate(payload)
    delivery = result.exam_delivery
    if not await _open["seen"].set(f"seen:{delivery.deliverable_id}", 1, nx=True, ex=IDENTITY_SECONDS):
        return
    url = f"{RHYTHM_URL}/{delivery.eligibility_id}"
    async with _open["rhythm"].get(url) as answer:
        registration = await answer.json()
    patch = [
        {"op": "add", "path": f"/{name}", "value": value}
        for name, value in values(result).items()
        if registration.get(name) != value
    ]
    if patch:
        async with _open["rhythm"].patch(url, json=patch):
            pass


async def publish(url: str, payloads: Sequence[dict[str, Any]]) -> None:
    """Publish them as a sender of this queue does."""
    sender = RedisStreamBroker(url, queue_name=QUEUE)
    task = sender.register_task(sync.original_func, sync.task_name)
    await sender.startup()
    for start in range(0, len(payloads), 100):
        await asyncio.gather(*(task.kiq(payload) for payload in payloads[start : start + 100]))
    await sender.shutdown()
