"""`python -m chaos`: runs from seeds, each judged; exit code 0 when every promise was kept. See chaos/README.md."""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from itertools import count
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Final

from chaos.checker import Violation, check
from chaos.figures import Figures
from chaos.judged import Judged, interruptible, judged
from chaos.minimise import minimise
from chaos.run import play
from chaos.schedule import Schedule, schedule

_SHOWN: Final = 20


def main() -> int:
    """Play the seeds asked for, some side by side. The folder of one that fails stays."""
    asked = _asked()
    interruptible()
    began, total, failed = time.monotonic(), Figures(), list[int]()
    for seed, made, found, seconds in _outcomes(asked):
        total.add(made)
        _tell(seed, made, found, seconds)
        if found:
            failed.append(seed)
            print(
                f"it replays with: make chaos SEED={seed} EVENTS={asked.events} SECONDS={asked.seconds:g} "
                f"PROCS={asked.procs}; what was seen is in {asked.folder / f'seed-{seed}'}",
                flush=True,
            )
            if asked.minimise:
                _minimise(seed, asked, found)
    if total.runs > 1:
        _sum(total, failed, time.monotonic() - began)
    return 1 if failed else 0


def _outcomes(asked: argparse.Namespace) -> Iterator[Judged]:
    """Each seed's outcome, as they end. None is begun after the first that fails, unless asked to keep going."""
    sizes, left, running = (
        (asked.events, asked.seconds, asked.procs, asked.folder),
        list(asked.seeds),
        set[Future[Judged]](),
    )
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn"), initializer=interruptible) as pool:
        try:
            while left or running:
                while left and len(running) < asked.jobs:
                    running.add(pool.submit(judged, left.pop(0), *sizes))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for each in done:
                    yield each.result()
                    if each.result()[2] and not asked.keep_going:
                        left.clear()
        finally:
            for run in active_children():  # interrupted: they end all that they started
                run.terminate()


def _minimise(seed: int, asked: argparse.Namespace, found: list[Violation]) -> None:
    """Say which sittings are enough for the first violation's check to fail."""
    plan, wanted, number = schedule(seed, asked.events, asked.seconds, asked.procs), found[0].check, count()

    def fails(part: Schedule) -> bool:
        folder = asked.folder / f"seed-{seed}-part-{next(number)}"
        return any(one.check == wanted for one in check(part, play(part, asked.procs, folder), folder))

    small = minimise(plan, fails)
    print(f"  enough for {wanted!r}: {', '.join(f'{one.kind} {one.who}' for one in small.sittings)}", flush=True)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, action="append", default=[], help="this seed; may be repeated")
    parser.add_argument("--new", type=int, default=0, help="so many new seeds besides; one when none is named")
    parser.add_argument("--from", type=int, help="the new seeds are this one and those that follow, instead of drawn")
    number = partial(parser.add_argument, type=int)
    number("--events", default=400, help="deliveries of a run")
    parser.add_argument("--seconds", type=float, default=12.0, help="time over which they are sent")
    number("--procs", default=2, help="worker processes, of two children each")
    number("--jobs", default=1, help="runs side by side")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first seed that fails")
    parser.add_argument("--minimise", action="store_true", help="cut a failing run down to few sittings")
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    first, more = getattr(asked, "from"), asked.new or (0 if asked.seed else 1)
    drawn = random.sample(range(1_000_000), more)
    asked.seeds = [*asked.seed, *(range(first, first + more) if first is not None else drawn)]
    asked.folder = asked.folder or Path(tempfile.mkdtemp(prefix="examrelay-chaos-"))
    return asked


def _tell(seed: int, made: Figures, found: list[Violation], seconds: float) -> None:
    first, *more = made.lines()
    print(f"seed {seed}, {seconds:.0f} s: {first}")
    for line in [*more, f"{len(found)} violations" if found else "every promise was kept"]:
        print(f"  {line}")
    for one in found[:_SHOWN]:
        print(f"  VIOLATED {one.check}: {one.about}: {one.detail}")
    sys.stdout.flush()


def _sum(total: Figures, failed: list[int], seconds: float) -> None:
    """All runs together."""
    print(f"{total.runs} seeds in {seconds / 60:.0f} min, {len(failed)} failed{f': {failed}' if failed else ''}")
    for line in total.lines():
        print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
