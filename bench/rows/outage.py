"""After an outage of an hour: how long the results that came meanwhile take at the pace that Rhythm allows.

At two results a second an hour leaves 7,200. Rhythm answers 503 to every call while they wait; then it allows five
calls a second and answers 429 to more. The outage itself is cut short: until the gate has asked in vain a few times.
"""

import time
from collections.abc import Iterator
from typing import Final

from bench.line import Line
from bench.measure import wait, writes
from bench.ours import TENANT
from bench.payloads import sittings
from bench.runs import effects
from bench.session import Session
from worker.ledger import queries

_CALLS: Final = 5
#: Probes that failed: the pause grows with each.
_ASKED: Final = 4


def measure(session: Session) -> Iterator[Line]:
    """Seconds from the moment Rhythm answers again to its last answer."""
    rhythm, given = session.full.sandbox, sittings(session.size.outage_events)
    ours = session.ours("outage", f"concurrency = 4\ncalls_per_second = {_CALLS}", rhythm=session.full)
    rhythm.seed(ours.org, [one.seed for one in given])
    ours.load(given)
    before = rhythm.counts()["calls"]
    rhythm.fault("status", status=503, times=None)
    ours.go()
    wait(lambda: int(queries.gate(ours.client, TENANT).get("failures", 0)) >= _ASKED, 120, "the closed gate")
    down = rhythm.counts()["calls"] - before
    rhythm.options(rate_limit={"calls_per_second": _CALLS, "burst": 2, "retry_after": "seconds"})
    rhythm.clear_faults()
    began = time.time()
    wait(ours.drained, 600, "the end of the backlog")
    rhythm.options(rate_limit=None)
    log = [one for one in rhythm.requests(before) if f"/{ours.org}/" in one["path"]]
    done = writes(log)
    ours.end()
    refused, first, last = sum(one["status"] == 429 for one in log), done[0].at - began, done[-1].at - began
    note = f"the first write after {first:.1f} s; {down} calls while it was down, {refused} refused with 429"
    yield Line(
        f"{len(given):,} events after an outage, {_CALLS} calls a second: seconds to the last",
        last,
        ours_effects=effects(done, given),
        note=f"{note}; {len(given) / (last - first):.0f} results a second",
    )
