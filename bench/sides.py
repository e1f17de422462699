"""A side: a Valkey of its own and the processes on it, on loopback, with examrelay's durable configuration."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import redis

from bench.measure import RedisCounts, cpu_seconds
from bench.payloads import Sitting
from tests.running import ROOT, Valkey, free_port, wait_until

_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")


class Side:
    """What is measured: `load` puts events where they wait, `go` lets them be worked on, until `drained`."""

    #: Rhythm's tenant, so that each side has registrations and a rate limit of its own.
    org: str
    queue: str

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir(exist_ok=True)
        self.valkey = Valkey().start()
        self.client = redis.Redis.from_url(self.valkey.url, socket_timeout=60)  # on a busy machine
        self.port = free_port()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        # Proxies of the environment are not for loopback.
        self.environ = {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}
        # Celery's processes leave a folder of theirs behind when they are killed: it goes with ours.
        self.environ["TMPDIR"] = str(self.folder)

    @property
    def valkey_pid(self) -> int:
        """Its Valkey's process id."""
        return int(self.client.info("server")["process_id"])

    def on_glibc(self) -> None:
        """From now on its Valkey takes its memory from glibc, as the program does by itself."""
        self.valkey.stop()
        self.valkey.variables = {}
        self.valkey.start()

    def load(self, sittings: Sequence[Sitting]) -> None:
        """Have events wait."""
        raise NotImplementedError

    def go(self) -> None:
        """Let them go."""
        raise NotImplementedError

    def drained(self) -> bool:
        """Whether there is nothing left to do."""
        return not self.messages()

    def start(self, name: str, *arguments: str) -> None:
        """Start a process in a session of its own."""
        with (self.folder / f"{name}.log").open("ab") as output:
            self.running[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self.environ,
                start_new_session=True,
                stdout=output,
                stderr=output,
            )

    def signal(self, name: str, signum: signal.Signals) -> None:
        """To a process and its children, if it runs."""
        if name in self.running:
            with suppress(ProcessLookupError):
                os.killpg(self.running[name].pid, signum)

    def end(self, *names: str) -> None:
        """End processes and all their children, at once: there is nothing here worth keeping."""
        for name in names or tuple(self.running):
            if name in self.running:
                self.signal(name, signal.SIGKILL)
                with suppress(subprocess.TimeoutExpired):  # a starved machine: bench/ending.py waits for it at last
                    self.running.pop(name).wait(10)

    def cpu(self) -> float:
        """Seconds that its processes and its Valkey have used so far."""
        return cpu_seconds([process.pid for process in self.running.values()], [self.valkey_pid])

    def valkey_cpu(self) -> float:
        """Seconds that its Valkey has used so far."""
        return cpu_seconds([], [self.valkey_pid])

    def counts(self) -> RedisCounts:
        """What its Valkey has counted so far."""
        return RedisCounts.of(self.client)

    def messages(self) -> int:
        """Celery messages that wait or are not acknowledged."""
        return self.client.llen(self.queue) + self.client.hlen("unacked")  # type: ignore[operator,unused-ignore]

    def used_memory(self) -> int:
        """Bytes that its Valkey uses."""
        return int(self.client.info("memory")["used_memory"])

    def watch_commands(self) -> None:
        """From now on its Valkey counts anew, and notes what takes a millisecond."""
        self.client.config_resetstat()
        self.client.config_set("slowlog-log-slower-than", 1_000)
        self.client.slowlog_reset()

    def longest_command(self) -> float:
        """Milliseconds of the longest command since; 1 when none took as long."""
        return max((entry["duration"] / 1000 for entry in self.client.slowlog_get(128)), default=1)

    def dearest_commands(self, many: int = 4) -> str:
        """The commands that took most time since, each with its time a call and the longest of a thousand calls."""
        stats: dict[str, dict[str, Any]] = self.client.info("commandstats")
        times = self.client.info("latencystats")

        def told(name: str) -> str:
            longest = times.get(f"latency_percentiles_usec_{name}", {}).get("p99.9", 0)
            return f"{name} {stats[f'cmdstat_{name}']['usec_per_call']:.0f} us (p99.9 {longest:.0f})"

        names = sorted(stats, key=lambda name: -stats[name]["usec"])[:many]
        return ", ".join(told(name.removeprefix("cmdstat_")) for name in names)

    def answers(self) -> None:
        """Wait until its receiver takes connections."""

        def look() -> bool:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            connection.request("GET", "/healthz")
            return bool(connection.getresponse().status)

        wait_until(look, 30, "the receiver")

    def close(self) -> None:
        """End everything."""
        self.end()
        self.client.close()
        self.valkey.close()
