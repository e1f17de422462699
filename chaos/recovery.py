"""How soon work goes on after a worker died, Redis restarted or Redis hung: `python -m chaos.recovery`.

One worker process, nothing else fails, and a result comes in every 50 ms. Two times are measured from the moment at
which the trouble is over (the process was started again, Redis runs again): until Rhythm has the next result, and until
it has all that was accepted before.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import requests

from chaos.bodies import certiverse, registration
from chaos.schedule import Act
from chaos.stack import ORG, PASSWORD, Stack, stack
from tests.running import wait_until

_TENANT: Final = "steady"
_BETWEEN: Final = 0.05
_ACTS: Final = {
    "kill worker-0": Act(0, "kill", "worker-0", 1.0),
    "restart redis": Act(0, "restart", "redis", 1.0),
    "pause redis": Act(0, "pause", "redis", 2.0),
}


class Stream:
    """Results that come in all the time: when each was accepted, by registration."""

    def __init__(self, at: Stack) -> None:
        self.at, self.accepted = at, dict[str, float]()
        self._ends, self._written = threading.Event(), dict[str, float]()

    def run(self) -> None:
        """Send until the end; what is refused is sent again."""
        number = 0
        while not self._ends.is_set():
            who, number = f"r-{number}", number + 1
            self.at.rhythms[_TENANT].seed(ORG, [registration(who, "exam-1")])
            _, body, _, _ = certiverse(who, 90)
            while not self._accepted(body) and not self._ends.is_set():
                self._ends.wait(_BETWEEN)
            self.accepted[f"reg-{who}"] = time.time()
            self._ends.wait(_BETWEEN)

    def _accepted(self, body: bytes) -> bool:
        try:
            url = f"{self.at.url}/v1/{_TENANT}/certiverse"
            return requests.post(url, body, auth=("chaos", PASSWORD), timeout=5).status_code == 202
        except requests.RequestException:
            return False

    def end(self) -> None:
        """No more."""
        self._ends.set()

    def written(self) -> dict[str, float]:
        """When Rhythm was given the result, by registration."""
        for name in [each for each in list(self.accepted) if each not in self._written]:
            if history := self.at.rhythms[_TENANT].history(ORG, name):
                self._written[name] = history[0]["at"]
        return self._written


@contextmanager
def _streaming(at: Stack) -> Iterator[Stream]:
    stream = Stream(at)
    thread = threading.Thread(target=stream.run)
    thread.start()
    try:
        yield stream
    finally:
        stream.end()
        thread.join()


def main() -> int:
    """Measure each act so many times, and print what was seen."""
    parser = argparse.ArgumentParser(prog="python -m chaos.recovery", description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--lease", type=float, default=120.0, help="EXAMRELAY_LEASE_SECONDS")
    parser.add_argument("--only", choices=_ACTS)
    asked = parser.parse_args()
    for name in [asked.only] if asked.only else _ACTS:
        with (
            tempfile.TemporaryDirectory(prefix="examrelay-recovery-") as folder,
            stack(Path(folder), 1, asked.lease) as at,
        ):
            at.start_all()
            with _streaming(at) as stream:
                ends = _perform(at, stream, _ACTS[name], asked.times)
            written = wait_until(lambda: _all(stream), 200, "the last result")
        nexts = [min(each for each in written.values() if each > end) - end for end in ends]
        behind = [max(written[one] for one, when in stream.accepted.items() if when <= end) - end for end in ends]
        print(f"{name}: next result {_spread(nexts)}; all accepted before {_spread(behind)}", flush=True)
    return 0


def _perform(at: Stack, stream: Stream, act: Act, times: int) -> list[float]:
    """When the trouble was over, each time."""
    ends = []
    for _ in range(times):
        before = len(stream.accepted)
        wait_until(lambda before=before: len(stream.accepted) > before + 20, 60, "the stream")  # type: ignore[misc]
        at.perform(act)
        ends.append(time.time())
        wait_until(lambda: set(stream.written()) >= set(list(stream.accepted)[:-20]), 200, "what was accepted")
    return ends


def _all(stream: Stream) -> dict[str, float]:
    written = stream.written()
    return written if len(written) == len(stream.accepted) else {}


def _spread(seconds: list[float]) -> str:
    return f"p50 {statistics.median(seconds):.1f} s, max {max(*seconds, 0.0):.1f} s ({len(seconds)} times)"


if __name__ == "__main__":
    sys.exit(main())
