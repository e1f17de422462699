"""A pipeline with the payload in the message and `autoretry_for`, to show how it loses a result."""

import os

import celery
import redis

app = celery.Celery("naive", broker=os.environ["REDIS_URL"])
app.conf.update(task_acks_late=True, task_ignore_result=True, broker_connection_retry_on_startup=True)
runs = redis.Redis.from_url(os.environ["REDIS_URL"])


@app.task(autoretry_for=(ConnectionError,), retry_backoff=False, default_retry_delay=0, max_retries=None)
def sync(payload: str) -> None:
    """Fails as if Rhythm were down, while Redis has no memory left."""
    runs.incr("runs")
    runs.config_set("maxmemory", 1)
    raise ConnectionError("Rhythm does not answer")
