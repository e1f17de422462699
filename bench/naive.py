"""The naive pipeline, as a competent user writes it: one Celery task an event, the payload in the message.

What examrelay is measured against. It has none of the promises: an event is lost or written twice where Celery on Redis
loses or doubles a message. Run: `celery -A bench.naive worker`; bench/others.py gives it its environment.
"""

import os
from typing import Any

import redis
import requests
from celery import Celery
from requests.adapters import HTTPAdapter

from schemas.certiverse import ExamResult

REDIS_URL = os.environ.get("NAIVE_REDIS_URL", "redis://127.0.0.1:6379/0")
RHYTHM_URL = os.environ.get("NAIVE_RHYTHM_URL", "http://127.0.0.1:1")
QUEUE = "naive"
IDENTITY_SECONDS = 400 * 86_400

app = Celery("naive", broker=REDIS_URL)
app.conf.update(
    task_default_queue=QUEUE,
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"max_connections": 400},  # kombu's default of 10 makes acks fail under threads
)
seen = redis.Redis.from_url(REDIS_URL, max_connections=400)
rhythm = requests.Session()
rhythm.headers["Authorization"] = "Bearer sandbox-key"
rhythm.mount("http://", HTTPAdapter(pool_maxsize=128))


@app.task(bind=True, name="naive.sync", autoretry_for=(requests.RequestException,), retry_backoff=True, max_retries=5)  # type: ignore[untyped-decorator,unused-ignore]
def sync(self: Any, payload: dict[str, Any]) -> None:
    """Validate, deduplicate, read the registration, write what differs."""
    result = ExamResult.model_validate(payload)
    delivery = result.exam_delivery
    first = seen.set(f"seen:{delivery.deliverable_id}", 1, nx=True, ex=IDENTITY_SECONDS)
    if not first and not self.request.retries:
        return
    url = f"{RHYTHM_URL}/{delivery.eligibility_id}"
    answer = rhythm.get(url, timeout=15)
    answer.raise_for_status()
    registration = answer.json()
    patch = [
        {"op": "add", "path": f"/{name}", "value": value}
        for name, value in values(result).items()
        if registration.get(name) != value
    ]
    if patch:
        rhythm.patch(url, json=patch, timeout=15).raise_for_status()


@app.task(name="naive.nothing")  # type: ignore[untyped-decorator,unused-ignore]
def nothing() -> None:
    """What a message costs Celery by itself."""


def values(result: ExamResult) -> dict[str, Any]:
    """What the registration must say."""
    verdict, scaled = result.exam_result.verdict, result.exam_result.scaled
    completed = result.exam_delivery.delivery_completed_date_time
    return {
        "status": verdict.value if verdict else None,
        "score": float(scaled) if scaled is not None else None,
        "exam_date": completed.isoformat() if completed else None,
    }
