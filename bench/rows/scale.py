"""More workers: a backlog with 1, 2 and 4 children, with a second main process, and of two tenants.

On a machine of few cores this shows what more processes cost, and that nothing is lost or doubled; it cannot show what
more machines bring. The memory of each process is its share of what it maps (PSS).
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from bench.line import Line
from bench.ours import Ours, TwoTenants
from bench.payloads import sittings
from bench.runs import backlog
from bench.session import Session

#: Main processes, and the children of each.
_SHAPES: Final = ((1, 1), (1, 2), (1, 4), (2, 2), (2, 4))


def measure(session: Session) -> Iterator[Line]:
    """Each shape on a ledger of its own, once; Rhythm takes 0 ms, then 50 ms a call."""
    for main, children in _SHAPES:
        ours = session.side(Ours, f"scale-{main}-{children}", f"concurrency = {main * children}")
        yield from _lines(session, ours, main, children)
    two = session.side(TwoTenants, "scale-two-tenants", "concurrency = 4")
    yield from _lines(session, two, 1, 4, "two tenants, ")


def _lines(session: Session, ours: Ours, main: int, children: int, whose: str = "") -> Iterator[Line]:
    ours.start_workers(main, children)
    session.warm(ours)
    for latency in (0, 50):
        session.latency(latency)
        run = backlog(ours, session.rhythm, sittings(session.size.events))
        shape = f"{whose}{main} main process{'es' if main > 1 else ''}, {children} children each"
        cpu = f"CPU {run.cpu_ms:.2f} ms an event, of it Valkey {run.valkey_cpu_ms:.2f}"
        yield Line(
            f"{shape}, {latency} ms a call: written a second",
            run.rate,
            ours_effects=run.effects,
            note=f"{cpu}; memory {_memory(ours)} MB",
        )
    session.latency(0)
    ours.end()


def _memory(ours: Ours) -> str:
    """Megabytes of each of its main processes with its children."""
    totals = []
    for name, process in ours.running.items():
        if name.startswith("worker"):
            totals.append(f"{name} {sum(map(_pss, _group(process.pid))) / 1024:.0f}")
    return ", ".join(totals)


def _group(leader: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(ValueError, OSError):
            if os.getpgid(int(folder.name)) == leader:
                found.append(int(folder.name))
    return found


def _pss(pid: int) -> int:
    """Kilobytes."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
