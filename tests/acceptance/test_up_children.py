"""The supervisor of `examrelay up`: a child that ends is started again, ever more slowly."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.local.children import Children, Program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and relies on prctl")


class Notes:
    """Keeps what is said about children until there are so many messages."""

    def __init__(self, wanted: int) -> None:
        self.messages: list[str] = []
        self.enough = asyncio.Event()
        self._wanted = wanted

    def line(self, _name: str, _line: str) -> None: ...

    def about(self, _name: str, message: str) -> None:
        self.messages.append(message)
        if len(self.messages) == self._wanted:
            self.enough.set()


def kept(program: list[str], messages: int, between: Callable[[], object] = lambda: None) -> list[str]:
    """The first messages about a child that is kept running, which prints `up`. `between`: called once it is ready."""

    async def keep() -> list[str]:
        notes = Notes(messages)
        children = Children(os.environ, notes)
        await children.start([Program("dying", program, says="up")], 10)
        between()
        await asyncio.wait_for(notes.enough.wait(), 15)
        await children.stop([["dying"]])
        return notes.messages[:messages]

    return asyncio.run(keep())


def test_a_child_that_keeps_dying_is_started_ever_more_slowly() -> None:
    program = [sys.executable, "-S", "-c", "print('up', flush=True); input()"]
    assert kept(program, 2) == [f"ended with exit code 1; starting it again in {pause} s" for pause in (0.5, 1)]


def test_a_child_that_cannot_be_started_again_is_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.symlink_to("/bin/echo")
    assert kept([str(program), "up"], 4, between=program.unlink) == [
        "ended with exit code 0; starting it again in 0.5 s",
        "cannot be started: No such file or directory",
        "ended with exit code 0; starting it again in 1 s",
        "cannot be started: No such file or directory",
    ]
