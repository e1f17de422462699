"""All of examrelay behind three sentinels: the primary dies under load, and nothing that was accepted is lost."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import requests

from sandbox.control import Sandbox
from tests.acceptance.stack import Stack
from tests.events import certiverse, registration
from tests.pipeline import ORG
from tests.running import wait_until
from tests.sentinels import Cluster, Pair, cluster


@pytest.fixture
def redundant() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair().start()
    yield pair
    pair.close()


@pytest.fixture
def stack(redundant: Cluster, rhythm: Sandbox, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(
        tmp_path,
        redundant.servers[0],
        rhythm,
        {},
        {"EXAMRELAY_REPLICAS": "1", "EXAMRELAY_SWEEP_SECONDS": "1"},
    )
    stack.environ["REDIS_URL"] = redundant.url
    try:
        yield stack
    finally:
        stack.close()


def test_results_are_kept_and_written_once_when_the_primary_is_killed(redundant: Cluster, stack: Stack) -> None:
    ids = [f"reg-{number}" for number in range(60)]
    stack.rhythm.seed(ORG, [registration(id) for id in ids])
    stack.start_ready("worker")
    stack.start("beat", "web")
    stack.start_ready("sweeper")
    accepted, refused, longest = [], 0, 0.0
    for number, id in enumerate(ids):
        if number == 20:
            redundant.primary.stop(signal.SIGKILL)
        while True:
            began = time.monotonic()
            answer = stack.post(certiverse(f"dlv-{number}", id))
            longest = max(longest, time.monotonic() - began)
            if answer.status_code == 202:
                break
            assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
            refused += 1
        accepted.append(answer.json()["id"])
    stack.client = redundant.client()
    stack.synced(len(ids))
    stack.written_once(ids)
    assert stack.books().differences == ()
    assert (refused > 0, longest < 1) == (True, True)
    ready = requests.get(f"{stack.url}/readyz", timeout=5).json()
    assert f"127.0.0.1:{redundant.primary.port} as primary" in ready["durability"]


def test_a_worker_does_not_wait_for_a_primary_that_is_frozen(rhythm: Sandbox, tmp_path: Path, pair: Pair) -> None:
    with contextlib.closing(Stack(tmp_path, pair.primary, rhythm, {}, {})) as stack:
        rhythm.seed(ORG, [registration("reg-1"), registration("reg-2")])
        stack.environ["REDIS_URL"] = pair.url
        stack.start_ready("worker")
        stack.start_ready("sweeper")
        stack.start("beat", "web")
        stack.deliver([certiverse("dlv-1", "reg-1")])
        stack.synced(1)
        pair.primary.pause()
        pair.move(demote=False)
        stack.client.close()
        stack.client = redis.Redis.from_url(pair.primary.url)
        wait_until(lambda: stack.post(certiverse("dlv-2", "reg-2")).status_code == 202, 10, "an acceptance")
        stack.synced(2, 40)
        stack.written_once(["reg-1", "reg-2"])
