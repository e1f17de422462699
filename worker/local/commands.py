"""The processes that examrelay is, and the arguments of each. The Procfile says the same; a test compares them."""

import sys
from collections.abc import Mapping
from typing import Final

from worker.queues import HINT_QUEUE, RECEIVE_QUEUE, SWEEP_QUEUE

_CELERY: Final = ("celery", "-A", "worker.celery")
#: Neither is of use to workers that share nothing but the ledger, and both cost at each connect.
_APART: Final = ("--without-gossip", "--without-mingle")

#: For `python -m`. The receiver takes its port from PORT, the console from EXAMRELAY_CONSOLE_PORT, Flower its own from
#: FLOWER_PORT, and who may see it from FLOWER_BASIC_AUTH (`user:password`).
ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "web": ("worker.receiver",),
    "worker": (
        *(*_CELERY, "worker", "-P", "prefork", "-c", "4", "-Q", f"{HINT_QUEUE},{RECEIVE_QUEUE}"),
        *("-E", "-n", "worker@%h", *_APART),
    ),
    # On its own, one task at a time: a Rhythm that hangs cannot stop the sweep.
    "sweeper": (*_CELERY, "worker", "-P", "solo", "-Q", SWEEP_QUEUE, "-E", "-n", "sweeper@%h", *_APART),
    "beat": (*_CELERY, "beat"),
    "console": ("worker.console",),
    # The tenant is in `args`, what became of its events in `result` or `exception`.
    "flower": (
        *(*_CELERY, "flower", "--address=127.0.0.1"),
        "--tasks-columns=name,args,state,result,exception,received,runtime,worker",
    ),
}


def command(name: str) -> list[str]:
    """What starts a process of ours with this Python."""
    return [sys.executable, "-m", *ARGUMENTS[name]]
