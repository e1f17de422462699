"""`python -m bench`: measures examrelay against other ways, in turns, on this machine. See bench/README.md."""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import redis

from bench.ending import all_ended
from bench.line import Line, as_json, keep, show
from bench.rows.table import ROWS
from bench.session import Session
from bench.sizes import SIZES


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="examrelay against other ways.")
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; none: all")
    parser.add_argument("--size", choices=SIZES, default="usual", help="how much is measured")
    parser.add_argument("--rounds", type=int, help="turns of each pair")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"no row is called {', '.join(sorted(unknown))}; the rows are {', '.join(ROWS)}")
    return arguments


def main() -> int:
    """Measure, print, keep. Exit code 1 when a budget is missed, or could not be measured."""
    arguments = _arguments()
    began = time.monotonic()
    size = SIZES[arguments.size].with_rounds(arguments.rounds)
    measured: dict[str, list[Line]] = {}
    with all_ended(), ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="examrelay-bench-"))
        session = Session(stack, Path(folder), size)
        for name in [row for row in ROWS if not arguments.rows or row in arguments.rows]:
            measured[name] = list(_measured(session, name, began))
    text = as_json(measured, _about(session, arguments.size, time.monotonic() - began))
    kept = keep(text)
    if arguments.json:
        print(text)
    else:
        show(measured)
        print(f"{time.monotonic() - began:.0f} s, size {arguments.size}; every single run is in {kept}")
    return 1 if any(line.missed for lines in measured.values() for line in lines) else 0


def _measured(session: Session, name: str, began: float) -> Iterator[Line]:
    """A row's lines. A row that fails is a line that says so, and the others are measured all the same."""
    print(f"{time.monotonic() - began:5.0f} s  {name}", file=sys.stderr, flush=True)
    try:
        yield from ROWS[name](session)
    except (
        RuntimeError,
        OSError,
        AssertionError,
        ValueError,
        LookupError,
        ArithmeticError,
        redis.RedisError,
    ) as failure:
        yield Line(name, at_least=0, note=f"failed: {type(failure).__name__}: {failure}")
        session.begin_anew()


def _about(session: Session, size: str, seconds: float) -> dict[str, Any]:
    """When and where, and every single run."""
    runs = {name: [asdict(run) for run in found] for name, found in session.runs.items()}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    pools = {latency: {str(pool): rate for pool, rate in found.items()} for latency, found in session.pools.items()}
    return {"seconds": round(seconds), "size": size, "machine": machine, "naive's pools": pools, "runs": runs}


if __name__ == "__main__":
    sys.exit(main())
