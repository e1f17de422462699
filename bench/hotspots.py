"""Where our worker's time goes: the task in this process, under cProfile. Run: `python -m bench.hotspots [EVENTS]`.

cProfile makes Python's calls dearer than they are: read the shares there, and the times in the lines that are measured
without it. Redis' part is what it says of its own scripts.
"""

import cProfile
import io
import logging
import pstats
import sys
import tempfile
import time
from pathlib import Path

import structlog

from bench import light
from bench.ours import Ours, work
from bench.payloads import sittings
from sandbox.control import Sandbox
from worker.bootstrap import build
from worker.settings import Settings

_SHOWN = 32


def main(count: int) -> None:
    """Profile `count` events."""
    with light.start() as (rhythm, _), tempfile.TemporaryDirectory(prefix="examrelay-bench-") as name:
        ours = Ours(Path(name), "acme", rhythm.url)
        try:
            _profile(ours, rhythm, count)
        finally:
            ours.close()


def _profile(ours: Ours, rhythm: Sandbox, count: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    services = build(Settings())
    for profiled in (False, True):
        given = sittings(count)
        rhythm.seed(ours.org, [one.seed for one in given])
        ours.load(given)
        ours.client.config_resetstat()
        profile = cProfile.Profile()
        began, cpu = time.monotonic(), time.process_time()
        if profiled:
            profile.enable()
        while ours.unfinished():
            work(services)
        profile.disable()
        if profiled:
            _show(profile, count)
        else:
            _say(ours, count, time.monotonic() - began, time.process_time() - cpu)
    services.close()


def _say(ours: Ours, count: int, wall: float, cpu: float) -> None:
    commands = ours.client.info("commandstats")
    each = 1e6 / count
    scripts = commands["cmdstat_evalsha"]
    print(f"\n{wall * each:.0f} us an event, {cpu * each:.0f} of them CPU of this process")
    print(f"  Redis: {scripts['usec'] / count:.0f} us an event in {scripts['calls']} scripts, with")
    for name, stat in sorted(commands.items(), key=lambda item: -item[1]["usec"])[:12]:
        print(f"    {stat['usec'] / count:6.1f} us {stat['calls'] / count:6.2f} calls  {name.removeprefix('cmdstat_')}")


def _show(profile: cProfile.Profile, count: int) -> None:
    for order in ("tottime", "cumtime"):
        text = io.StringIO()
        stats = pstats.Stats(profile, stream=text).strip_dirs().sort_stats(order)
        stats.print_stats(_SHOWN)
        print(f"\n{count} events, by {order} (seconds):\n", text.getvalue())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3_000)
