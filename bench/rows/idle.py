"""Latency when little happens: 10 events a second on each side, from the request to `synced`, at 0 and 50 ms a call.

Both sides get their events half a period apart in the same minutes, so that what else the machine does hits both. The
naive pipeline has no state: its event ends with Rhythm's answer to the write.
"""

import http.client
import json
import time
from collections.abc import Iterator
from typing import Final

from bench.line import Line
from bench.load import HEADERS, PATH
from bench.measure import percentile, wait, writes
from bench.others import Pool
from bench.payloads import Sitting, sittings
from bench.runs import effects
from bench.session import Session

PER_SECOND: Final = 10
_BUDGET: Final = {0: (1.3, 1.05), 50: (1.1, 1.02)}
#: Naive's: with room for 10 a second at both latencies, and no slower for one event than its other pools.
_POOL: Final = Pool("prefork", 8)
#: Not counted: the first of a connection, of a child, of a route.
_WARM: Final = 10


def measure(session: Session) -> Iterator[Line]:
    """p50 and p90."""
    for latency, (budget, aim) in _BUDGET.items():
        ours, naive = session.ours(), session.naive_on(_POOL)
        session.receivers(ours, naive)
        session.latency(latency)
        given = [sittings(session.size.idle_samples + _WARM) for _ in range(2)]
        for side, one in zip((ours, naive), given, strict=True):
            session.rhythm.sandbox.seed(side.org, [sitting.seed for sitting in one])
        before = session.rhythm.sandbox.counts()["calls"]
        asked, events = _deliver([ours.port, naive.port], given)
        wait(lambda ours=ours, naive=naive: ours.drained() and naive.drained(), 60, "the last event")  # type: ignore[misc]
        session.latency(0)
        done = writes(session.rhythm.sandbox.requests(before))
        written = {id: write.at for write in done for id in write.ids}
        mine = [ours.synced_at(event) - at for event, at in zip(events, asked[0], strict=True)]
        theirs = [written.get(one.registration, 0) - at for one, at in zip(given[1], asked[1], strict=True)]
        harm = [effects(done, one) for one in given]
        for share in (50, 90):
            both = [percentile(waits[_WARM:], share) * 1000 for waits in (mine, theirs)]
            yield Line(
                f"{latency} ms a call: request to synced, p{share}, ms",
                *both,
                both[0] / both[1],
                at_most=budget,
                aim=aim,
                ours_effects=harm[0],
                other_effects=harm[1],
                note=f"{len(mine) - _WARM} samples; naive: {_POOL}",
            )


def _deliver(ports: list[int], given: list[list[Sitting]]) -> tuple[list[list[float]], list[str]]:
    """Deliver to the receivers in turns. Returns when each request began, and the ids that the first gave."""
    receivers = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for port in ports]
    asked: list[list[float]] = [[] for _ in ports]
    events = []
    due = time.monotonic()
    for each in zip(*given, strict=True):
        for receiver, sitting, times in zip(receivers, each, asked, strict=True):
            time.sleep(max(0.0, due - time.monotonic()))
            due += 1 / PER_SECOND / len(ports)
            times.append(time.time())
            answer = _post(receiver, sitting)
            if receiver is receivers[0]:
                events.append(json.loads(answer)["id"])
    for receiver in receivers:
        receiver.close()
    return asked, events


def _post(receiver: http.client.HTTPConnection, sitting: Sitting) -> bytes:
    receiver.request("POST", PATH, sitting.body, HEADERS)
    answer = receiver.getresponse()
    body = answer.read()
    if answer.status != 202:
        raise RuntimeError(f"a receiver answered {answer.status}: {body.decode(errors='replace')}")
    return body
