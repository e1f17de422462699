"""All of examrelay as real processes on loopback, which the nemesis kills, stops and starts. Ended with its block.

The product is used as a person uses it: by its commands, its HTTP and its tenants file. Only the table that says how
its processes are started is imported from it.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import redis
import requests

from chaos.schedule import LATE_EXAM, TENANTS, Act
from sandbox.control import Sandbox, start
from tests.running import ROOT, Valkey, free_port, wait_until
from worker.local.commands import ARGUMENTS

ORG: Final = "chaos.org"
PASSWORD: Final = "chaos"
#: The paced tenant's Rhythm allows so many calls a second, and enforces it.
CALLS_PER_SECOND: Final = 8
_TENANT: Final = """
[tenants.{name}]
read_credentials = {{ kind = "bearer", token = "env:CHAOS" }}
[tenants.{name}.rhythm]
url = "{url}"
tenant_id = "{org}"
credentials = {{ kind = "api_key", key = "env:CHAOS_RHYTHM" }}
timeout_seconds = 3
[tenants.{name}.sources.certiverse]
credentials = [ {{ kind = "basic", user = "chaos", password = "env:CHAOS" }} ]
[tenants.{name}.sources.drillster]
credentials = [ {{ kind = "basic", user = "chaos", password = "env:CHAOS" }} ]
third_party = "ACME"
[tenants.{name}.sources.prov]
credentials = [ {{ kind = "basic", user = "chaos", password = "env:CHAOS" }} ]
[[tenants.{name}.exams]]
exam_id = "exam-1"
codes = ["CERT-1"]
score = "scaled"
[[tenants.{name}.exams]]
exam_id = "exam-2"
codes = ["DRILL-2", "PROV-2"]
threshold = 70
"""
_LATE: Final = """
[[tenants.{name}.exams]]
exam_id = "exam-late"
codes = ["{late}"]
score = "scaled"
"""


class Stack:
    """The processes by name, a Valkey, a stand-in for each tenant, and a Sentry that keeps what it is sent."""

    def __init__(self, folder: Path, rhythms: dict[str, Sandbox], workers: int, lease: float) -> None:
        self.folder, self.rhythms = folder, rhythms
        self.valkey = Valkey().start()
        self.client = redis.Redis.from_url(
            self.valkey.url, socket_timeout=5, decode_responses=True, encoding_errors="replace"
        )
        self.port, self.running = free_port(), dict[str, subprocess.Popen[bytes]]()
        #: How often a process was started again that had ended by itself.
        self.restarts = Counter[str]()
        self._lock, self._ends = threading.RLock(), threading.Event()
        threading.Thread(target=self._supervise, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.port}"
        self.envelopes: list[bytes] = []
        self._sentry = self._serve_sentry()
        names = ("web", "sweeper", "beat")
        own = {f"worker-{number}": ("-c", "2", "-n", f"worker-{number}@%h") for number in range(workers)}
        self.commands = {name: ARGUMENTS[name] for name in names} | {
            name: (*ARGUMENTS["worker"], *more) for name, more in own.items()
        }
        self.write_tenants(late=False)
        variables = {
            "REDIS_URL": self.valkey.url,
            "PORT": str(self.port),
            "EXAMRELAY_CONFIG": str(folder / "examrelay.toml"),
            "EXAMRELAY_DATA": str(folder),
            "EXAMRELAY_LOG_FORMAT": "json",
            "EXAMRELAY_LEASE_SECONDS": str(lease),
            "EXAMRELAY_SWEEP_SECONDS": "1",
            "SENTRY_DSN": f"http://key@127.0.0.1:{self._sentry.server_port}/1",
            "CHAOS": PASSWORD,
            "CHAOS_RHYTHM": "sandbox-key",
        }
        self.environ = os.environ | variables
        rhythms["paced"].options(
            rate_limit={"calls_per_second": CALLS_PER_SECOND, "burst": CALLS_PER_SECOND, "retry_after": "seconds"}
        )

    def write_tenants(self, *, late: bool) -> None:
        """The tenants file; `late`: with the exam that it lacks at first."""
        text = "".join(
            _TENANT.format(name=name, url=self.rhythms[name].url, org=ORG)
            + (_LATE.format(name=name, late=LATE_EXAM) if late else "")
            for name in TENANTS
        )
        (self.folder / "examrelay.toml").write_text(text)

    def _serve_sentry(self) -> ThreadingHTTPServer:
        envelopes = self.envelopes

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                packed = self.headers.get("Content-Encoding") == "gzip"
                envelopes.append(gzip.decompress(sent) if packed else sent)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def start(self, name: str) -> None:
        """Start a process in a session of its own."""
        with self._lock, (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", *self.commands[name]],
                cwd=ROOT,
                env=self.environ,
                start_new_session=True,
                stdout=log,
                stderr=log,
            )

    def _supervise(self) -> None:
        """Start again what ended by itself, as every supervisor does: some do when they start while Redis is away."""
        while not self._ends.wait(1):
            with self._lock:
                for name in [name for name, process in self.running.items() if process.poll() is not None]:
                    self.restarts[name.split("-")[0]] += 1
                    self.start(name)

    def start_all(self) -> None:
        """Start all, and wait until the receiver answers."""
        for name in self.commands:
            self.start(name)
        wait_until(lambda: requests.get(f"{self.url}/healthz", timeout=2).ok, 30, "the receiver")

    def signal(self, name: str, signum: signal.Signals) -> None:
        """Send a signal to a process and its children."""
        with suppress(ProcessLookupError), self._lock:
            if name in self.running:
                os.killpg(self.running[name].pid, signum)

    def kill(self, name: str) -> None:
        """End a process and its children at once. It stays away until it is started."""
        with self._lock:
            process = self.running.pop(name, None)
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)

    def perform(self, act: Act) -> None:
        """Do what the nemesis does, for as long as it lasts."""
        match act.what, act.target:
            case "kill", target:
                names = [one for one in self.commands if one == target or (target == "workers" and "worker" in one)]
                for name in names:
                    self.kill(name)
                time.sleep(act.seconds)
                for name in names:
                    self.start(name)
            case "stop", name:
                self.signal(name, signal.SIGSTOP)
                time.sleep(act.seconds)
                self.signal(name, signal.SIGCONT)
            case "pause", _:
                self.valkey.pause()
                time.sleep(act.seconds)
                self.valkey.resume()
            case "restart", _:
                self.valkey.stop(signal.SIGKILL)
                time.sleep(act.seconds)
                self.valkey.start()
            case "fill", _:
                self.client.config_set("maxmemory", 1)
                time.sleep(act.seconds)
                self.client.config_set("maxmemory", 0)
            case "drop connections", _:
                self.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def command(self, *arguments: str) -> Any:
        """Run a command of the operator's. Returns its JSON if it was asked for, else its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=120,
        )
        with (self.folder / "operator.log").open("a") as log:
            log.write(f"$ examrelay {' '.join(arguments)}\n{done.stdout[-4000:]}{done.stderr}exit {done.returncode}\n")
        return json.loads(done.stdout) if "--json" in arguments else done.returncode

    def close(self) -> None:
        """End everything."""
        self._ends.set()
        for name in list(self.running):
            self.kill(name)
        self.client.close()
        self.valkey.close()
        self._sentry.shutdown()
        self._sentry.server_close()


@contextmanager
def stack(folder: Path, workers: int, lease: float = 8.0) -> Iterator[Stack]:
    """A stack with nothing running but its Valkey and its stand-ins. `lease`: seconds."""
    with ExitStack() as ends:
        rhythms = {name: ends.enter_context(start()) for name in TENANTS}
        made = Stack(folder, rhythms, workers, lease)
        ends.callback(made.close)
        yield made


def keys(client: "redis.Redis", patterns: Sequence[str]) -> dict[str, Any]:
    """What Redis holds under these patterns, by key."""
    reads: dict[str, Callable[[str], Any]] = {
        "zset": lambda key: client.zrange(key, 0, -1),
        "list": lambda key: client.lrange(key, 0, -1),
        "set": lambda key: sorted(client.smembers(key)),
        "hash": client.hgetall,
        "string": client.get,
        "none": lambda _: None,  # gone since it was found
    }
    found = [key for pattern in patterns for key in client.scan_iter(pattern, count=1000)]
    values = {key: reads[client.type(key)](key) for key in found}
    return {key: value for key, value in values.items() if value}
