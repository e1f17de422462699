"""The other sides: the naive pipeline on several pools, Celery's no-op, taskiq with aiohttp."""

import asyncio
import json
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from bench import naive
from bench.payloads import Sitting
from bench.sides import Side

_STASH: Final = "naive.stash"
_QUIET: Final = ("-l", "WARNING", "--without-gossip", "--without-mingle")


class Pool(NamedTuple):
    """A pool of Celery's, and how many work in it."""

    kind: str
    size: int

    def __str__(self) -> str:
        return f"{self.kind} {self.size}"


#: Examrelay's own.
OURS: Final = Pool("prefork", 4)


def installed(package: str) -> bool:
    """Whether what `requirements-bench.lock` names is here."""
    return find_spec(package) is not None


class _OnCelery(Side):
    """Messages wait in a stash that no worker looks at, until `go` renames it."""

    queue = naive.QUEUE
    events: tuple[str, ...] = ("-E",)
    #: That its worker runs on.
    pool: Pool | None = None

    def __init__(self, folder: Path, name: str, rhythm_url: str) -> None:
        super().__init__(folder, name)
        self.org = f"{name}.org"
        self.environ |= {
            "NAIVE_REDIS_URL": self.valkey.url,
            "NAIVE_RHYTHM_URL": f"{rhythm_url}/examRegistrations/{self.org}",
        }
        # Its own connection: the app's pool belongs to the first broker it met.
        self.producer = naive.app.amqp.Producer(naive.app.connection_for_write(self.valkey.url))

    def start_worker(self, pool: Pool) -> None:
        """Its worker, in place of the one before; log lines for each task are off, as ours are."""
        self.end("worker")
        self.pool = pool
        pooled = ("-P", pool.kind, "-c", str(pool.size), "-Q", self.queue)
        self.start("worker", "-m", "celery", "-A", "bench.naive", "worker", *pooled, *_QUIET, *self.events)

    def start_receiver(self, kind: str) -> None:
        """One of the receivers of bench/receivers.py."""
        self.start("web", "-m", "bench.receivers", kind, str(self.port))

    def go(self) -> None:
        """All of them onto the worker's queue at once."""
        self.client.rename(_STASH, self.queue)


class Naive(_OnCelery):
    """The naive pipeline."""

    def load(self, sittings: Sequence[Sitting]) -> None:
        """Messages, each with its payload, as its own receiver sends them."""
        for one in sittings:
            naive.sync.apply_async((json.loads(one.body),), producer=self.producer, queue=_STASH)


class NaiveQuiet(Naive):
    """The same without Celery's events, which Flower needs."""

    events = ()


class Noop(_OnCelery):
    """As many tasks as there are events, which do nothing."""

    def load(self, sittings: Sequence[Sitting]) -> None:
        """Messages without a payload."""
        for _ in sittings:
            naive.nothing.apply_async((), producer=self.producer, queue=_STASH)


class Taskiq(Side):
    """The naive pipeline on taskiq and aiohttp: two processes, 50 tasks at once in each."""

    def __init__(self, folder: Path, name: str, rhythm_url: str) -> None:
        super().__init__(folder, name)
        self.org = f"{name}.org"
        self.environ |= {
            "NAIVE_REDIS_URL": self.valkey.url,
            "NAIVE_RHYTHM_URL": f"{rhythm_url}/examRegistrations/{self.org}",
        }

    def start_worker(self) -> None:
        """Its worker."""
        how = ("-w", "2", "--max-async-tasks", "50", "--ack-type", "when_executed", "--log-level", "WARNING")
        self.start("worker", "-m", "taskiq", "worker", "bench.taskiq_naive:broker", *how)

    def load(self, sittings: Sequence[Sitting]) -> None:
        """Messages in its stream; the worker stands still until `go`."""
        from bench import taskiq_naive

        self.signal("worker", signal.SIGSTOP)
        asyncio.run(taskiq_naive.publish(self.valkey.url, [json.loads(one.body) for one in sittings]))

    def go(self) -> None:
        """The worker goes on."""
        self.signal("worker", signal.SIGCONT)

    def messages(self) -> int:
        """Messages that wait or are not acknowledged."""
        from bench import taskiq_naive

        if not self.client.exists(taskiq_naive.QUEUE):
            return 0
        (group,) = self.client.xinfo_groups(taskiq_naive.QUEUE)  # type: ignore[misc,unused-ignore]
        return int(group["pending"]) + int(group["lag"] or 0)
