"""One seed's run, played and judged, in a process of its own."""

import shutil
import signal
import sys
import time
from pathlib import Path

from chaos.checker import Violation, check
from chaos.figures import Figures, figures
from chaos.run import play
from chaos.schedule import schedule

#: The seed, what the run had to stand, which promises were not kept, and how many seconds it took.
Judged = tuple[int, Figures, list[Violation], float]


def interruptible() -> None:
    """Let SIGTERM end a run as Ctrl-C does: with all of its processes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def judged(seed: int, events: int, seconds: float, procs: int, folder: Path) -> Judged:
    """Play a seed and judge it. What was seen stays in a folder of `folder` when a promise was not kept.

    A run that breaks, such as by a command that does not end, has kept no promise.
    """
    plan, began = schedule(seed, events, seconds, procs), time.monotonic()
    mine = folder / f"seed-{seed}"
    try:
        seen = play(plan, procs, mine)
    except Exception as error:  # noqa: BLE001  # whatever broke, the other seeds go on
        broken = Violation("the run", str(seed), f"{type(error).__name__}: {error}")
        return seed, Figures(1), [broken], time.monotonic() - began
    found = check(plan, seen, mine)
    if not found:
        shutil.rmtree(mine)
    return seed, figures(plan, seen), found, time.monotonic() - began
