"""Nothing that the benchmark starts outlives it, however it ends: by itself, by Ctrl-C, by SIGTERM. Linux.

Each side ends its own processes. This is for what is left when a side is interrupted half made, and for processes whose
parent has ended before them: the benchmark is the parent of those (`PR_SET_CHILD_SUBREAPER`).
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

_SUBREAPER: Final = 36  # prctl(2)
_PARENT: Final = 1  # its place in /proc/PID/stat after the name
_SECONDS: Final = 10.0


@contextmanager
def all_ended() -> Iterator[None]:
    """Until the block ends SIGTERM ends it as Ctrl-C does. Then everything that was started is killed."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, _stop)
    try:
        yield
    finally:
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(signum, signal.SIG_IGN)  # a second one must not interrupt this
        _kill_descendants()


def _stop(signum: int, _frame: object) -> NoReturn:
    sys.exit(128 + signum)


def _kill_descendants() -> None:
    deadline = time.monotonic() + _SECONDS
    while (left := descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """The living processes whose parent, or parent's parent, is `pid`."""
    parents = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # it has just ended
            if folder.name.isdecimal():
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[_PARENT])
    found, fresh = set[int](), {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return sorted(found)
