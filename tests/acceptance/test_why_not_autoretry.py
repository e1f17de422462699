"""Why retries are kept in the ledger: Celery deletes a message whose retry cannot be published."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import celery
import redis

from tests.running import ROOT, Valkey, wait_until


def test_autoretry_deletes_the_message_when_its_retry_cannot_be_published(tmp_path: Path) -> None:
    valkey = Valkey().start()
    environ = os.environ | {"REDIS_URL": valkey.url}
    client = redis.Redis.from_url(valkey.url)
    command = [sys.executable, "-m", "celery", "-A", "tests.acceptance.naive_app", "worker", "-P", "solo"]
    log = (tmp_path / "naive.log").open("wb")
    worker = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        app = celery.Celery("sender", broker=valkey.url)
        app.send_task("tests.acceptance.naive_app.sync", args=["a candidate's result"])
        wait_until(
            lambda: b"exceptions.Reject" in (tmp_path / "naive.log").read_bytes(), 20, "the retry that is refused"
        )
        client.config_set("maxmemory", 0)
        wait_until(lambda: client.hlen("unacked") == 0 and client.llen("celery") == 0, 10, "nothing left")
        assert client.get("runs") == b"1", "it ran once, failed, and nothing is left to run again"
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(10)
        client.close()
        app.close()
        valkey.close()
        log.close()
