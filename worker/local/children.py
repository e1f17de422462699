"""Child processes: started, watched, started again when they die, stopped in order, and never left behind.

Knows nothing of examrelay. Everything runs in one thread, but for probes, which may block: on Linux a child is tied to
the thread that started it.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

#: A child that dies is started again after this many seconds, doubling up to the cap, anew once it has been up a while.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
STEADY_SECONDS: Final = 60.0
#: Of a child's output, what is shown when it does not start.
LAST_LINES: Final = 12
_LONGEST_LINE: Final = 64 * 1024
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


class Output(Protocol):
    """Who is told what children say, and what is to be said about them."""

    def line(self, name: str, line: str) -> None: ...

    def about(self, name: str, what: str) -> None: ...


@dataclass(frozen=True)
class Program:
    """What to run, and how one sees that it is ready: by what it says, or because it answers."""

    name: str
    command: Sequence[str]
    says: str = ""
    answers: Callable[[], bool] | None = None
    #: After SIGTERM it has this long to end by itself.
    grace_seconds: float = 10.0


class StartFailed(Exception):
    """A child was not ready in time, or died before. The message ends with its last lines."""


def tie_to_parent(signum: int = signal.SIGKILL) -> Callable[[], None]:
    """What a child does before it becomes its program, so that it dies with us however we die. Linux; else nothing."""
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def tie() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signum)
            if os.getppid() != parent:  # died in between
                os._exit(1)

    return tie


class Child:
    """One program's process, and those after it. Each has its own session, so that Ctrl-C reaches only us."""

    def __init__(self, program: Program, environment: Mapping[str, str], output: Output) -> None:
        self.program = program
        self.said = not program.says
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._environment = environment
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._partial = b""
        self._ended = asyncio.Event()

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name

    @property
    def running(self) -> bool:
        """Whether its process has been started and has not ended."""
        return self._process is not None and not self._ended.is_set()

    def start(self) -> None:
        """Start the process and read what it says."""
        self._ended.clear()
        self._process = subprocess.Popen(  # in a group of its own, for `signal`
            self.program.command, env=dict(self._environment), start_new_session=True, preexec_fn=tie_to_parent(),  # noqa: PLW1509
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        asyncio.get_running_loop().add_reader(self._process.stdout.fileno(), self._read)

    def look(self) -> None:
        """Notice whether it has ended; what it left behind in its group ends too. To be called at SIGCHLD."""
        process = self._process
        if process is None or self._ended.is_set() or process.poll() is None:
            return
        self._signal_group(signal.SIGKILL)
        assert process.stdout is not None
        self._read()
        asyncio.get_running_loop().remove_reader(process.stdout.fileno())
        process.stdout.close()
        if self._partial:
            self._pass_on(self._partial)
            self._partial = b""
        self._ended.set()

    async def ended(self) -> str:
        """Wait for the end. Returns how it ended, in words."""
        await self._ended.wait()
        assert self._process is not None
        code = self._process.returncode
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    async def keep(self) -> None:
        """Start it again whenever it dies. For ever: cancel to stop."""
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            how = await self.ended()
            if time.monotonic() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE
            self._output.about(self.name, f"{how}; starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            self.start()

    async def become_ready(self, seconds: float) -> None:
        """Wait until it is ready. Raises StartFailed, with its last lines."""
        deadline = time.monotonic() + seconds
        answers = self.program.answers
        while not (self.said and (answers is None or await asyncio.to_thread(answers))):
            if self._ended.is_set():
                raise self._failure(await self.ended())
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {seconds:g} s")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """SIGTERM, a while to end by itself, then SIGKILL."""
        if self.running:
            assert self._process is not None
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), self.program.grace_seconds)
        if self.running:
            self._output.about(self.name, f"did not end within {self.program.grace_seconds:g} s and is killed")
            self.kill()
            await self._ended.wait()

    def kill(self) -> None:
        """SIGKILL to its whole group."""
        if self.running:
            self._signal_group(signal.SIGKILL)

    def _signal_group(self, signum: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            os.killpg(self._process.pid, signum)

    def _read(self) -> None:
        """Pass on whole lines of what it has said so far."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        try:
            while chunk := os.read(descriptor, _LONGEST_LINE):
                *lines, self._partial = (self._partial + chunk).split(b"\n")
                if len(self._partial) > _LONGEST_LINE:
                    lines, self._partial = [*lines, self._partial], b""
                for line in lines:
                    self._pass_on(line)
        except BlockingIOError:
            return
        asyncio.get_running_loop().remove_reader(descriptor)

    def _pass_on(self, said: bytes) -> None:
        line = said.decode(errors="replace").rstrip()
        self.said = self.said or self.program.says in line
        self.last_lines.append(line)
        self._output.line(self.name, line)

    def _failure(self, how: str) -> StartFailed:
        return StartFailed("\n  ".join([f"{self.name} {how}. It said last:", *(self.last_lines or ["(nothing)"])]))


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
        self._all |= {child.name: child for child in wave}
        for child in wave:
            child.start()
        await _all_or_first_failure([child.become_ready(seconds) for child in wave])
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


async def _all_or_first_failure(waits: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait side by side; the first failure cancels the others and is raised as itself."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
