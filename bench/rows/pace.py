"""Results a second where Rhythm allows five calls a second and answers 429 to more; at 0 and 500 ms a call.

Both sides at once: each has a rate limit of its own, and neither can use the machine up at that pace.
"""

import time
from collections.abc import Iterator
from typing import Any, Final

from bench.line import Line
from bench.measure import Effects, rate, wait, writes
from bench.others import Naive, Pool
from bench.ours import Ours
from bench.payloads import sittings
from bench.runs import effects
from bench.session import Session
from bench.sides import Side

_CALLS: Final = 5
#: GET and PATCH: what a pipeline of one event a task could reach at best, if no call were ever refused.
_NAIVE_BEST: Final = _CALLS / 2
_NAIVE_EVENTS: Final = 200
_POOL: Final = Pool("prefork", 8)


def measure(session: Session) -> Iterator[Line]:
    """Our tenant is told the pace in its file; the naive pipeline meets it by its retries."""
    for latency in (0, 500):
        ours = session.ours(f"paced-{latency}", f"concurrency = 4\ncalls_per_second = {_CALLS}", rhythm=session.full)
        naive = session.side(Naive, f"naive-paced-{latency}", rhythm=session.full)
        naive.start_worker(_POOL)
        yield _line(session, ours, naive, latency)
        ours.end()
        naive.end()


def _line(session: Session, ours: Ours, naive: Naive, latency: int) -> Line:
    rhythm, seconds = session.full.sandbox, session.size.pace_seconds
    given, theirs = sittings(int(seconds * 100 * _CALLS / 2)), sittings(_NAIVE_EVENTS)
    for side, events in ((ours, given), (naive, theirs)):
        rhythm.seed(side.org, [one.seed for one in events])
        side.load(events)
    rhythm.options(latency_ms=latency, rate_limit={"calls_per_second": _CALLS, "burst": 2, "retry_after": "seconds"})
    before = rhythm.counts()["calls"]
    naive.go()
    ours.go()
    time.sleep(seconds)
    log = rhythm.requests(before)
    rhythm.options(latency_ms=0, rate_limit=None)
    done, of_naive = (writes(_calls(side, log)) for side in (ours, naive))
    results, reached = rate(done), sum(len(write.ids) for write in of_naive) / seconds
    refused = sum(one["status"] == 429 for one in _calls(ours, log))
    wait(ours.drained, 300, "the rest")
    waiting = naive.messages()
    whole = rhythm.requests(before)
    return Line(
        f"{latency} ms a call: results a second at {_CALLS} calls",
        results,
        max(reached, _NAIVE_BEST),
        results / max(reached, _NAIVE_BEST),
        at_least=80,
        aim=100,
        ours_effects=effects(writes(_calls(ours, whole)), given),
        other_effects=_of_the_rest(effects(writes(_calls(naive, whole)), theirs), waiting),
        note=f"naive at its best in theory; in {seconds} s it reached {reached:.1f}; we were refused {refused} calls",
    )


def _calls(side: Side, log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in log if f"/{side.org}/" in one["path"]]


def _of_the_rest(found: Effects, waiting: int) -> Effects:
    """Of those that are not written, the waiting ones are not lost."""
    return Effects(max(0, found.lost - waiting), found.doubled)
