"""Real things for tests: a Valkey of one's own, processes, ports, and waiting with a deadline on what can be seen."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import redis

from worker.local.valkey import allocator, binary

T = TypeVar("T")
ROOT = Path(__file__).parent.parent


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(look: Callable[[], T], seconds: float = 20, what: str = "it") -> T:
    """What `look` gives once that is truthy. Fails after `seconds`. An error of `look` counts as not yet."""
    deadline = time.monotonic() + seconds
    seen: object = None
    while time.monotonic() < deadline:
        try:
            seen = look()
            if seen:
                return seen
        except (OSError, redis.RedisError) as error:
            seen = error
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come about within {seconds} s; last seen: {seen!r}")


class Valkey:
    """A Valkey server on a free port of this machine, durable like production unless `config` says otherwise.

    Its data is in a folder that is made `inside` another one.
    """

    def __init__(self, port: int | None = None, inside: Path | None = None, **config: str) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = tempfile.TemporaryDirectory(prefix="examrelay-test-", dir=inside)
        self._config = {"appendonly": "yes", "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction"}
        self._config["hash-max-listpack-value"] = "256"  # as both configurations that we ship
        self._config |= {name.replace("_", "-"): value for name, value in config.items()}
        self._process: subprocess.Popen[bytes] | None = None
        #: Of its environment, what ours does not have.
        self.variables = allocator()

    @property
    def folder(self) -> Path:
        """Where its data is."""
        return Path(self._folder.name)

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def start(self, **config: str) -> "Valkey":
        """Start, or start again on the same data; from then on with `config`."""
        self._config |= {name.replace("_", "-"): value for name, value in config.items()}
        options = [part for name, value in self._config.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder.name, *options],
            env=os.environ | self.variables,
            stdout=subprocess.DEVNULL,
        )
        with redis.Redis.from_url(self.url) as client:
            wait_until(client.ping, 10, "Valkey")
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server and wait for it."""
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(10)
            self._process = None

    def pause(self) -> None:
        """It hangs: connections stay, nothing is answered."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It answers again."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop, and forget the data."""
        self.stop(signal.SIGKILL)
        self._folder.cleanup()


@contextlib.contextmanager
def process(
    *arguments: str, environ: dict[str, str] | None = None, log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours in a group of its own, killed with all its children at the end."""
    output = log.open("ab") if log else subprocess.DEVNULL
    started = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | (environ or {}),
        start_new_session=True,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait(10)
        if log:
            output.close()  # type: ignore[union-attr]
