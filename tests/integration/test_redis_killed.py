"""Redis is killed at every script boundary of one batch, and started again on its append-only file.

A batch of every fate is played once without a kill, and its scripts are counted. Then it is played anew for each of
them: Redis is killed before the script's request arrives, or when the script has had its effect and before its reply
goes out. Either Redis is back at once, and who called tries again, or it stays away until the task has failed.
With EXAMRELAY_FULL=1 (`make sweeps`) each boundary is tried; else a seeded sample.
"""

import hashlib
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from tests.cutting import CuttingProxy, Side, cutting_proxy
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import Valkey, wait_until
from tests.stages import again, said, waits
from worker.errors import LedgerUnavailable
from worker.ledger.audit.books import books
from worker.ledger.client import SCRIPTS, script_text
from worker.queues import HINT_QUEUE, PROCESS

FULL = os.environ.get("EXAMRELAY_FULL") == "1"
GROUPS, SAMPLE, ROUNDS = 2, 4, 8
NAMES = {hashlib.sha1(script_text(name).encode()).hexdigest(): name for name in ("record", *SCRIPTS)}
PASSED, FAILED = ("passed", 82.5), ("failed", 60)


def result(number: int, registration: str | None, **more: Any) -> bytes:
    return certiverse(f"dlv-{number}", registration, student=f"stu-{number}", email=f"c-{number}@example.org", **more)


def theirs(number: int, id: str) -> dict[str, Any]:
    return registration(id, student_id=f"stu-{number}", email_address=f"c-{number}@example.org")


FAIL = {"passed": False, "score": 60}
BATCH = (
    result(1, "reg-1"),
    again(result(1, "reg-1")),
    result(2, "reg-2", **FAIL),
    result(2, "reg-2", rescore=True),
    result(3, None),  # two registrations fit
    result(4, "reg-4", exam="CERT-9"),  # not in the exam map
    b"{",
    result(5, None),  # its registration is made later, and the reply to its write is lost
    result(6, "reg-6"),  # and what contradicts it
    result(6, "reg-6", **FAIL),
)
ENDS = Counter(
    {
        (EventState.SYNCED, "written"): 3,
        (EventState.DUPLICATE, None): 1,
        (EventState.SUPERSEDED, None): 1,
        (EventState.HELD, Reason.REGISTRATION_AMBIGUOUS): 1,
        (EventState.HELD, Reason.UNKNOWN_EXAM): 1,
        (EventState.HELD, Reason.RESULT_CONFLICT): 2,
        (EventState.DEAD, Reason.INVALID_JSON): 1,
    }
)
SAYS = {"reg-1": [PASSED], "reg-2": [PASSED], "reg-3": [], "reg-3b": [], "reg-4": [], "reg-5": [PASSED], "reg-6": []}


#: At the so-manyeth script, on this side of it; and whether Redis is back before the caller tries again.
Kill = tuple[int, Side, bool]


class Batch:
    """The batch on its way, on a Valkey of its own that is reached through the proxy."""

    def __init__(self, pipeline: Pipeline, valkey: Valkey, proxy: CuttingProxy) -> None:
        self.pipeline, self.valkey, self.proxy = pipeline, valkey, proxy
        self.client = pipeline.services.redis
        self.ids = set[str]()
        #: Whether all that was done since time passed last went through.
        self.well = True

    def kill(self, number: int, side: Side, at_once: bool) -> None:
        """Have Redis killed there."""

        def meanwhile() -> None:
            self.valkey.stop(signal.SIGKILL)
            if at_once:
                self.valkey.start()

        self.proxy.cut(number, side, meanwhile)

    def play(self) -> None:
        """Deliver all, and do what workers and sweeper do until nothing waits. Between the rounds time passes."""
        for body in BATCH:
            wait_until(
                lambda body=body: self.survives(lambda: self.ids.add(self.pipeline.deliver(body))), 60, "a receipt"
            )
        for number in range(ROUNDS):
            self.take_hints()
            self.survives(self.sweep)
            self.take_hints()
            if self.well and not waits(self.pipeline):
                return
            if number == 0:
                self.pipeline.rhythm.seed(ORG, [theirs(5, "reg-5")])
            self.pipeline.due_now()
            self.well = True
        raise AssertionError("events still wait")

    def take_hints(self) -> None:
        """Do the tasks that are hinted. The hint of one that fails is lost."""
        while hint := cast("bytes | None", self.client.lpop(HINT_QUEUE)):
            assert json.loads(hint)["headers"]["task"] == PROCESS
            self.survives(self.pipeline.sync)
            assert not self.well or not self.left("slots"), "a task gives its slot back"

    def sweep(self) -> None:
        """The pass over the tenant, when every hint is old enough to count as lost."""
        self.pipeline.ledger.sweep(TENANT, timedelta(0), 100)

    def survives(self, act: Callable[[], object]) -> bool:
        """Whether it goes through. If not, Redis comes back."""
        try:
            act()
        except (redis.RedisError, LedgerUnavailable):
            if not self.valkey.running:
                self.valkey.start()
            self.well = False
            return False
        return True

    def left(self, *patterns: str) -> list[bytes]:
        """The tenant's keys of these forms."""
        return [key for pattern in patterns for key in self.client.scan_iter(f"er:{TENANT}:{pattern}")]

    def check(self, at_once: bool) -> None:
        """Accepted is accounted for, each once and where it belongs; and nothing is on its way any more.

        Where Redis was back at once, nobody has lost a lease.
        """
        events = [self.pipeline.event(id) for id in self.ids]
        assert Counter((event.state, event.reason or event.result) for event in events) == ENDS
        assert {id: said(self.pipeline, id) for id in SAYS} == SAYS
        moves = {entry.move for event in events for entry in event.history}
        assert not at_once or "lease.expired" not in moves
        found = books(self.client, TENANT)
        assert (found.differences, found.accepted, found.accounted) == ((), len(BATCH), len(BATCH))
        assert self.left("slots", "hint") == []
        held = [self.client.hmget(key, "lease", "intent", "doubt", "expiries") for key in self.left("event:*")]
        held += [self.client.hmget(key, "owner") for key in self.left("registration:*")]
        assert not any(any(fields) for fields in held)
        assert not self.client.exists(HINT_QUEUE)


@pytest.fixture(scope="module")
def private() -> Iterator[Valkey]:
    """A Valkey to kill and start."""
    server = Valkey().start()
    yield server
    server.close()


@pytest.fixture
def play(
    private: Valkey, rhythm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Kill | None], list[str]]:
    """Plays the batch from the beginning and checks how it ends. Returns the scripts that were called."""

    def play(kill: Kill | None) -> list[str]:
        with cutting_proxy(private.port) as proxy, redis.Redis.from_url(private.url) as client:
            client.flushall()
            for name in NAMES.values():
                client.script_load(script_text(name))  # or each would be called twice after the last restart
            rhythm.reset()
            rhythm.seed(
                ORG, [*map(theirs, (1, 2, 3, 3, 4, 6), ("reg-1", "reg-2", "reg-3", "reg-3b", "reg-4", "reg-6"))]
            )
            rhythm.fault("apply_then_lose", kind="patch")
            monkeypatch.setenv("REDIS_URL", proxy.url)
            at_once = kill is None or kill[2]
            with pipeline_at(tmp_path, rhythm, patient=at_once) as pipeline:
                batch = Batch(pipeline, private, proxy)
                if kill:
                    batch.kill(*kill)
                batch.play()
                assert proxy.cuts == (kill is not None and kill[0] <= len(proxy.scripts))
                batch.check(at_once)
            return [NAMES[digest] for digest in proxy.scripts]

    return play


@pytest.mark.parametrize("group", range(GROUPS))
def test_redis_killed_at_any_script_of_a_batch_loses_and_doubles_nothing(
    play: Callable[[Kill | None], list[str]], group: int, record_property: Callable[[str, object], None]
) -> None:
    scripts = play(None)
    assert {"record", "claim", "prepare", "apply", "intend", "gate", "sweep"} <= set(scripts)
    every = list(product(range(1, len(scripts) + 1), get_args(Side), (True, False)))
    kills = every[group::GROUPS] if FULL else random.Random(group).sample(every, SAMPLE)
    for number, side, at_once in kills:
        try:
            play((number, side, at_once))
        except AssertionError as error:
            error.add_note(f"Redis was killed {side} script {number}, {scripts[number - 1]}; back at once: {at_once}")
            raise
    record_property("sweep", f"{len(kills)} kills at the {len(scripts)} scripts {dict(Counter(scripts))}")
