"""Latency when little happens: 10 events a second at each receiver, from its 2xx to the write in Rhythm.

Both sides get their events half a period apart in the same minutes, so that what else the machine does hits both.
"""

import http.client
import json
import time
from base64 import b64encode
from dataclasses import dataclass
from typing import Final, Self

from bench.machines import ORG, TENANT, Naive, Ours, Side
from bench.measure import percentile, writes
from bench.payloads import Sitting, sittings
from sandbox.control import Sandbox
from tests.running import wait_until
from tests.tenants import ENVIRON

PER_SECOND: Final = 10
SAMPLES: Final = 150
_PASSWORD: Final = b64encode(f"certiverse:{ENVIRON['ACME_CERTIVERSE']}".encode()).decode()
PATH: Final = f"/v1/{TENANT}/certiverse"
HEADERS: Final = {"Authorization": f"Basic {_PASSWORD}", "Content-Type": "application/json"}
#: Not counted: the first of a connection, of a child, of a route.
_WARM: Final = 10


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from a receiver's 2xx to the write, and Rhythm calls an event."""

    p50: float
    p90: float
    calls: float

    @classmethod
    def of(cls, accepted: dict[str, float], written: dict[str, float], calls: int) -> Self:
        """From the times at which each registration's event was accepted, and then written."""
        waits = [(written[id] - at) * 1000 for id, at in list(accepted.items())[_WARM:]]
        return cls(percentile(waits, 50), percentile(waits, 90), calls / len(accepted))


def idle(ours: Ours, naive: Naive, rhythm: Sandbox, latency: int) -> tuple[Latency, Latency]:
    """Both sides' latency. Workers and receivers run already."""
    rhythm.options(latency_ms=latency)
    before = rhythm.counts()
    accepted = _deliver([ours, naive], rhythm)
    wanted = before["writes"] + sum(map(len, accepted))
    wait_until(lambda: rhythm.counts()["writes"] >= wanted, 30, "every write")
    rhythm.options(latency_ms=0)
    log = rhythm.requests(before["calls"])
    written = {id: write.at for write in writes(log) for id in write.ids}
    calls = [sum(1 for call in log if side.keys() & set(call["ids"])) for side in accepted]
    first, second = (Latency.of(side, written, count) for side, count in zip(accepted, calls, strict=True))
    return first, second


def _deliver(sides: list[Side], rhythm: Sandbox) -> list[dict[str, float]]:
    """Deliver to the sides in turns. Returns when each side accepted each registration's event."""
    given = [sittings(SAMPLES + _WARM) for _ in sides]
    for one in given:
        rhythm.seed(ORG, [sitting.seed for sitting in one])
    receivers = [http.client.HTTPConnection("127.0.0.1", side.port, timeout=10) for side in sides]
    accepted: list[dict[str, float]] = [{} for _ in sides]
    due = time.monotonic()
    for each in zip(*given, strict=True):
        for receiver, sitting, times in zip(receivers, each, accepted, strict=True):
            time.sleep(max(0.0, due - time.monotonic()))
            due += 1 / PER_SECOND / len(sides)
            times[sitting.registration] = _post(receiver, sitting)
    for receiver in receivers:
        receiver.close()
    return accepted


def _post(receiver: http.client.HTTPConnection, sitting: Sitting) -> float:
    """Deliver one event. Returns the time of its 2xx."""
    receiver.request("POST", PATH, sitting.body, HEADERS)
    answer = receiver.getresponse()
    at = time.time()
    body = answer.read()
    if answer.status != 202:
        raise RuntimeError(f"a receiver answered {answer.status}: {json.dumps(body.decode(errors='replace'))}")
    return at
