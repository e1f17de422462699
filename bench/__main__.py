"""`python -m bench`: measures examrelay against the naive pipeline, in turns, on this machine. See bench/README.md."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.backlog import best_pools, pairs, warm_naive, warm_ours
from bench.idle import idle
from bench.machines import machines
from bench.memory import memory
from bench.receiver import receivers
from bench.report import Results, as_json, keep, show
from sandbox.control import Sandbox, start

PARTS = ("backlog", "idle", "receiver", "memory")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="examrelay against the naive pipeline.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each pair")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    if not set(arguments.parts) <= set(PARTS):
        parser.error(f"the parts are {', '.join(PARTS)}")
    return arguments


def main() -> int:
    """Measure, print, keep. Exit code 1 when a budget is missed."""
    arguments = _arguments()
    parts: Sequence[str] = arguments.parts or PARTS
    began = time.monotonic()
    results = Results()
    with start() as rhythm:
        if {"backlog", "idle"} & set(parts):
            _pipelines(results, rhythm, parts, arguments.rounds)
        with tempfile.TemporaryDirectory(prefix="examrelay-bench-") as folder:
            if "receiver" in parts:
                _say("receiver")
                results.receivers = receivers(Path(folder), rhythm, arguments.rounds)
            if "memory" in parts:
                _say("memory")
                results.memory = memory(Path(folder), rhythm)
    text = as_json(results, time.monotonic() - began)
    kept = keep(text)
    if arguments.json:
        print(text)
    else:
        show(results)
        print(f"{time.monotonic() - began:.0f} s; every single run is in {kept}")
    return 1 if any(row.kept is False for row in results.rows()) else 0


def _pipelines(results: Results, rhythm: Sandbox, parts: Sequence[str], rounds: int) -> None:
    """What needs both pipelines running; naive's pool at each latency is its best there."""
    with machines(rhythm) as (ours, naive):
        _say("warming up; naive's best pool")
        warm_ours(ours, rhythm)
        best = best_pools(naive, rhythm)
        if "idle" in parts:
            ours.start_all("web")
            naive.start_receiver("apply_async")
            ours.answers()
            naive.answers()
        for latency, pool in best.items():
            warm_naive(naive, rhythm, pool)
            if "backlog" in parts:
                _say(f"backlog, {latency} ms")
                results.backlog[latency] = pairs(ours, naive, rhythm, pool, latency, rounds)
            if "idle" in parts:
                _say(f"idle, {latency} ms")
                results.idle[latency] = idle(ours, naive, rhythm, latency)


def _say(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
