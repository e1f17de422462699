"""Sentinel fails over again and again under load: `python -m chaos.failover`.

Three servers, three sentinels, receiver, worker, sweeper and beat on this machine. Results come in all the time, and
each way of failing over is played so many times:

kill    the primary is killed, and started again once another one has its place
ask     `SENTINEL FAILOVER`
soft    `SENTINEL FAILOVER … COORDINATED` (Valkey 9.1)
freeze  the primary is stopped, and goes on, as a stale one, once another one has its place
both    as `ask`, and the receiver is killed in that moment: what it remembers is gone, and `audit` must say so

Printed are what was accepted, lost and doubled, and for how long at most, around each failover, no result was accepted
and none written.
"""

import argparse
import itertools
import json
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import redis
import requests

from chaos.bodies import certiverse, registration
from chaos.stack import ORG, PASSWORD, Stack, stack
from tests.running import Valkey, wait_until
from tests.sentinels import NAME, Cluster, cluster

_TENANT: Final = "steady"
_WAYS: Final = ("kill", "ask", "soft", "freeze", "both")
_SEEDED: Final = 500
_STALE_SECONDS: Final = 2.0


class Stream:
    """Results that come in all the time, from several senders."""

    def __init__(self, at: Stack, senders: int, pause: float) -> None:
        self.at, self._senders, self._pause = at, senders, pause
        #: When each was accepted, and the id of its event, by registration.
        self.accepted: dict[str, tuple[float, str]] = {}
        self.refused, self.slowest = Counter[str](), 0.0
        self._ends, self._lock, self._numbers = threading.Event(), threading.Lock(), itertools.count()
        self._pool = ThreadPoolExecutor(senders)

    def start(self) -> None:
        """Start all senders."""
        for _ in range(self._senders):
            self._pool.submit(self._send_all)

    def end(self) -> None:
        """No more."""
        self._ends.set()
        self._pool.shutdown()

    def _next(self) -> str:
        with self._lock:
            number = next(self._numbers)
            if number % _SEEDED == 0:
                new = [registration(f"r-{number + more}", "exam-1") for more in range(_SEEDED)]
                self.at.rhythms[_TENANT].seed(ORG, new)
            return f"r-{number}"

    def _send_all(self) -> None:
        with requests.Session() as session:
            session.trust_env, session.auth = False, ("chaos", PASSWORD)
            while not self._ends.is_set():
                who = self._next()
                body = certiverse(who, 90)[1]
                while not (id := self._send(session, body)) and not self._ends.wait(0.1):
                    pass
                if id:
                    self.accepted[f"reg-{who}"] = (time.time(), id)
                self._ends.wait(self._pause)

    def _send(self, session: requests.Session, body: bytes) -> str | None:
        began = time.monotonic()
        try:
            answer = session.post(f"{self.at.url}/v1/{_TENANT}/certiverse", body, timeout=10)
        except requests.RequestException as error:
            self.refused[type(error).__name__] += 1
            return None
        self.slowest = max(self.slowest, time.monotonic() - began)
        if answer.status_code != 202:
            self.refused[f"{answer.status_code}"] += 1
            return None
        return str(answer.json()["id"])


def play(way: str, redundant: Cluster, at: Stack) -> None:
    """One failover in this way; returns when the cluster is in order again."""
    former = redundant.primary
    match way:
        case "kill":
            former.stop(signal.SIGKILL)
        case "freeze":
            former.pause()
        case "ask":
            _ask(redundant, former)
        case "soft":
            _ask(redundant, former, "COORDINATED")
        case "both":
            _ask(redundant, former)
            at.kill("web")
    redundant.failed_over(former, 60)
    if way == "kill":
        former.start()
    elif way == "freeze":
        time.sleep(_STALE_SECONDS)
        former.resume()
    elif way == "both":
        at.start("web")
    redundant.settled()


def _ask(redundant: Cluster, former: Valkey, *words: str) -> None:
    """Ask for a failover until there is one: on a busy machine sentinels give one up."""
    while redundant.primary is former:
        with suppress(redis.ResponseError, AssertionError):
            redundant.ask("FAILOVER", NAME, *words)
            redundant.failed_over(former, 10)


def gap(moments: list[float], begin: float, end: float) -> float:
    """The longest time without one of these, around what happened between begin and end."""
    before = max((each for each in moments if each <= begin), default=begin)
    inside = [before, *(each for each in moments if begin < each <= end)]
    after = min((each for each in moments if each > end), default=end)
    return max(later - earlier for earlier, later in itertools.pairwise([*inside, after]))


def measure(way: str, replicas: int, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Play one way so many times, and say what was seen."""
    config = {"min_replicas_to_write": "1", "min_replicas_max_lag": "10"} if asked.min_replicas else {}
    with cluster(down_after=asked.down_after, **config) as redundant, stack(folder, 1) as at:
        at.environ |= {"REDIS_URL": redundant.url, "EXAMRELAY_REPLICAS": str(replicas)}
        at.start_all()
        stream = Stream(at, asked.senders, asked.pause)
        stream.start()
        try:
            times = _play_all(way, asked.times, redundant, at, stream)
        finally:
            stream.end()
        return _seen(redundant, at, stream, times)


def _play_all(way: str, number: int, redundant: Cluster, at: Stack, stream: Stream) -> list[tuple[float, float]]:
    times = []
    for _ in range(number):
        before, written = len(stream.accepted), at.rhythms[_TENANT].counts()["letters"]
        wait_until(lambda before=before: len(stream.accepted) > before + 50, 60, "the stream")  # type: ignore[misc]
        wait_until(
            lambda written=written: at.rhythms[_TENANT].counts()["letters"] > written + 50,  # type: ignore[misc]
            120,
            "results that are written",
        )
        began = time.time()
        play(way, redundant, at)
        times.append((began, time.time()))
    return times


def _seen(redundant: Cluster, at: Stack, stream: Stream, times: list[tuple[float, float]]) -> dict[str, Any]:
    def letters() -> list[dict[str, Any]]:
        return [each for each in at.rhythms[_TENANT].letters() if each["tenant"] == ORG]

    def unwritten() -> set[str]:
        return set(stream.accepted) - {each["registration"] for each in letters()}

    last = time.monotonic()
    while unwritten() and time.monotonic() - last < 60:
        time.sleep(1)
    written = Counter(each["registration"] for each in letters())
    with redundant.client() as client:
        names = list(stream.accepted)
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.exists(f"er:{_TENANT}:event:{stream.accepted[name][1]}")
        absent = [name for name, there in zip(names, pipeline.execute(), strict=True) if not there]
    accepted = [at for at, _ in stream.accepted.values()]
    accepting = [gap(accepted, *each) for each in times]
    writing = [gap([each["at"] for each in letters()], *each) for each in times]
    audit = at.command("audit", "--json")
    return {
        "failovers": len(times),
        "accepted": len(names),
        "absent from the ledger": len(absent),
        "never written": len(unwritten()),
        "written twice": sum(count > 1 for count in written.values()),
        "audit": len(audit["differences"]),
        "takeovers": audit.get("takeovers"),
        "without acceptance": _spread(accepting),
        "without a write": _spread(writing),
        "slowest answer": round(stream.slowest, 2),
        "refused": dict(stream.refused),
        "restarts": dict(at.restarts),
    }


def _spread(seconds: list[float]) -> str:
    return f"p50 {statistics.median(seconds):.1f} s, max {max(seconds):.1f} s"


def main() -> int:
    """Play what was asked for. Exit code 1: something was written twice, or lost though the receiver lived."""
    parser = argparse.ArgumentParser(prog="python -m chaos.failover", description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--way", choices=_WAYS, action="append")
    parser.add_argument("--replicas", type=int, action="append", help="EXAMRELAY_REPLICAS; default 1, then 0")
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two results of a sender")
    parser.add_argument("--down-after", type=float, default=1.0, help="seconds (down-after-milliseconds)")
    parser.add_argument("--min-replicas", action="store_true", help="min-replicas-to-write 1 on the servers")
    parser.add_argument("--keep", type=Path, help="a folder for the logs")
    asked = parser.parse_args()
    faults = 0
    for replicas in asked.replicas or [1, 0]:
        for way in asked.way or _WAYS:
            with tempfile.TemporaryDirectory(prefix="examrelay-failover-") as temporary:
                folder = asked.keep / f"{way}-{replicas}" if asked.keep else Path(temporary)
                folder.mkdir(parents=True, exist_ok=True)
                seen = measure(way, replicas, asked, folder)
            print(json.dumps({"way": way, "replicas": replicas} | seen), flush=True)
            faults += seen["written twice"] + (0 if way == "both" else seen["absent from the ledger"])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
