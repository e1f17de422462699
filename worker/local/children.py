"""Child processes: started, watched, started again when they die, stopped in order, and never left behind.

Knows nothing of examrelay. Everything runs in one thread, but for probes, which may block: on Linux a child is tied to
the thread that started it.
"""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from worker.local.logs import Output

#: A child that dies is started again after this many seconds; the pause doubles up to the longest. It is the first
#: again after the child has been up for `STEADY_SECONDS`.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
STEADY_SECONDS: Final = 60.0
#: Of a child's output, how many lines are shown when it does not start.
LAST_LINES: Final = 12
_LONGEST_LINE: Final = 64 * 1024
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


@dataclass(frozen=True)
class Program:
    """What to run, and how one sees that it is ready: it prints a line with `says`, or `answers` is true."""

    name: str
    command: Sequence[str]
    says: str = ""
    answers: Callable[[], bool] | None = None
    #: After SIGTERM it has this long to end by itself.
    grace_seconds: float = 10.0
    #: Of its environment, what the other programs do not have.
    variables: Mapping[str, str] = field(default_factory=dict)


class StartFailed(Exception):
    """A child was not ready in time, or died before. The message ends with its last lines."""


def tie_to_parent(signum: int = signal.SIGKILL) -> Callable[[], None]:
    """What a child does before it becomes its program, so that it dies with us however we die. Linux; else nothing."""
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def tie() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signum)
            if os.getppid() != parent:  # the parent died before the call
                os._exit(1)

    return tie


class Child:
    """One program's process, and those after it. Each has its own session, so that Ctrl-C reaches only us."""

    def __init__(self, program: Program, environment: Mapping[str, str], output: Output) -> None:
        self.program = program
        self._environment = environment
        self._output = output
        self._said = not program.says
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._partial = b""
        self._ended = asyncio.Event()

    def start(self) -> None:
        """Start the process and read what it says."""
        self._process = subprocess.Popen(
            self.program.command,
            env={**self._environment, **self.program.variables},
            start_new_session=True,  # a group of its own, for `kill`
            preexec_fn=tie_to_parent(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._ended.clear()
        assert self._process.stdout is not None
        self._stdout = self._process.stdout.fileno()
        os.set_blocking(self._stdout, False)
        asyncio.get_running_loop().add_reader(self._stdout, self._read)

    def look(self) -> None:
        """Notice whether it has ended; what it left behind in its group ends too. To be called at SIGCHLD."""
        if self._ended.is_set() or self._process.poll() is None:
            return
        self.kill()
        self._read()
        asyncio.get_running_loop().remove_reader(self._stdout)
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._partial:
            self._pass_on(self._partial)
            self._partial = b""
        self._ended.set()

    async def keep(self) -> None:
        """Start it again whenever it dies. For ever: cancel to stop."""
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            await self._ended.wait()
            if time.monotonic() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE
            self._output.about(self.program.name, f"{self._end()}; starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                self.start()
            except OSError as error:  # no memory or no process to be had; the next turn tries again
                self._output.about(self.program.name, f"cannot be started: {error.strerror}")

    async def become_ready(self, seconds: float) -> None:
        """Wait until it is ready. Raises StartFailed, with its last lines."""
        deadline = time.monotonic() + seconds
        answers = self.program.answers
        while not (self._said and (answers is None or await asyncio.to_thread(answers))):
            if self._ended.is_set():
                raise self._failure(self._end())
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {seconds:g} s")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """SIGTERM, its grace to end by itself, then SIGKILL."""
        if not self._ended.is_set():
            self._process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), self.program.grace_seconds)
        if not self._ended.is_set():
            how = f"did not end within {self.program.grace_seconds:g} s and is killed"
            self._output.about(self.program.name, how)
            self.kill()
            await self._ended.wait()

    def kill(self) -> None:
        """SIGKILL to its whole group."""
        if not self._ended.is_set():
            with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self) -> None:
        """Pass on whole lines of what it has printed so far."""
        with suppress(BlockingIOError):
            while chunk := os.read(self._stdout, _LONGEST_LINE):
                *lines, self._partial = (self._partial + chunk).split(b"\n")
                if len(self._partial) > _LONGEST_LINE:
                    lines, self._partial = [*lines, self._partial], b""
                for line in lines:
                    self._pass_on(line)
            asyncio.get_running_loop().remove_reader(self._stdout)

    def _pass_on(self, output: bytes) -> None:
        line = output.decode(errors="replace").rstrip()
        self._said = self._said or self.program.says in line
        self._last_lines.append(line)
        self._output.line(self.program.name, line)

    def _end(self) -> str:
        """How its process ended, in words."""
        code = self._process.returncode
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def _failure(self, how: str) -> StartFailed:
        last_lines = self._last_lines or ["(nothing)"]
        return StartFailed("\n  ".join([f"{self.program.name} {how}. It said last:", *last_lines]))


class Children:
    """All of them: started in waves, stopped in waves."""

    def __init__(self, environment: Mapping[str, str], output: Output) -> None:
        self._environment = environment
        self._output = output
        self._all: dict[str, Child] = {}
        self._keepers: list[asyncio.Task[None]] = []
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._look)

    async def start(self, programs: Sequence[Program], seconds: float) -> None:
        """Start a wave at once and wait until every one is ready. Raises StartFailed for the first that is not."""
        wave = [Child(program, self._environment, self._output) for program in programs]
        for child in wave:
            child.start()
            self._all[child.program.name] = child
        try:
            async with asyncio.TaskGroup() as group:
                for child in wave:
                    group.create_task(child.become_ready(seconds))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        self._keepers += [asyncio.create_task(child.keep()) for child in wave]

    async def stop(self, waves: Sequence[Sequence[str]]) -> None:
        """Stop by waves of names; nothing is started again."""
        for keeper in self._keepers:
            keeper.cancel()
        for wave in waves:
            await asyncio.gather(*(self._all[name].stop() for name in wave if name in self._all))

    def kill(self) -> None:
        """SIGKILL to everything, now."""
        for child in self._all.values():
            child.kill()

    def _look(self) -> None:
        for child in self._all.values():
            child.look()
