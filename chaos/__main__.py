"""`python -m chaos`: runs from seeds, each judged; exit code 0 when every promise was kept. See chaos/README.md."""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Final

from chaos.checker import Violation, check
from chaos.minimise import minimise
from chaos.run import play
from chaos.schedule import Json, Schedule, schedule

_SHOWN: Final = 20


def main() -> int:
    """Play the seeds asked for. Stops at the first that fails and leaves its folder."""
    asked = _asked()
    seeds = asked.seed or [random.randrange(1_000_000)]
    for seed in seeds:
        plan = schedule(seed, asked.events, asked.seconds, asked.procs)
        folder = asked.folder / f"seed-{seed}"
        began = time.monotonic()
        seen = play(plan, asked.procs, folder)
        found = check(plan, seen, folder)
        _tell(plan, seen, found, time.monotonic() - began)
        if found:
            if asked.minimise:
                _minimise(plan, asked, found)
            print(f"it replays with: make chaos SEED={seed} EVENTS={asked.events} SECONDS={asked.seconds:g} "
                  f"PROCS={asked.procs}; what was seen is in {folder}")  # fmt: skip
            return 1
    return 0


def _minimise(plan: Schedule, asked: argparse.Namespace, found: list[Violation]) -> None:
    """Say which sittings are enough for the first violation's check to fail."""
    wanted, number = found[0].check, count()

    def fails(part: Schedule) -> bool:
        folder = asked.folder / f"seed-{plan.seed}-part-{next(number)}"
        return any(one.check == wanted for one in check(part, play(part, asked.procs, folder), folder))

    small = minimise(plan, fails)
    print(f"  enough for {wanted!r}: {', '.join(f'{one.kind} {one.who}' for one in small.sittings)}")


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, action="append", help="may be repeated; else one is drawn")
    parser.add_argument("--events", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--procs", type=int, default=2, help="worker processes, of two children each")
    parser.add_argument("--minimise", action="store_true", help="cut a failing run down to few sittings")
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    asked.folder = asked.folder or Path(tempfile.mkdtemp(prefix="examrelay-chaos-"))
    return asked


def _tell(plan: Schedule, seen: Json, found: list[Violation], seconds: float) -> None:
    events = sum(len(one["events"]) for one in seen["tenants"].values())
    calls = sum(one["calls"] for one in seen["tenants"].values())
    acts = Counter(f"{one['what']} {one['target'].split('-')[0]}" for one in seen["acts"])
    faults = Counter(one.settings["action"] for one in plan.faults)
    print(f"seed {plan.seed}: {events} events in {seconds:.0f} s, {calls / max(events, 1):.2f} calls an event")
    print(f"  nemesis: {_counts(acts)}")
    print(f"  Rhythm's failures, windows: {_counts(faults)}; senders were refused: {_counts(seen['refused'])}")
    for what in sorted({one["after"] for one in seen["recovery"]}):
        took = [one["seconds"] for one in seen["recovery"] if one["after"] == what]
        print(f"  work moved again after {what}: p50 {statistics.median(took):.1f} s, max {max(took):.1f} s")
    print(f"  {len(found)} violations" if found else "  every promise was kept")
    for one in found[:_SHOWN]:
        print(f"  VIOLATED {one.check}: {one.about}: {one.detail}")
    sys.stdout.flush()


def _counts(counted: "Counter[str] | dict[str, int]") -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counted.items())) or "none"


if __name__ == "__main__":
    sys.exit(main())
