"""Runs the command `examrelay` as an operator does: as a process, in a pipe or on a terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

from tests.running import ROOT
from tests.tenants import ENVIRON

Act = Callable[[], object]
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def environ(config: Path, **more: str) -> dict[str, str]:
    """The command's environment variables. `config`: the tenants file."""
    folder = str(config.parent)
    return os.environ | ENVIRON | {"EXAMRELAY_CONFIG": str(config), "EXAMRELAY_DATA": folder, "USER": "ann"} | more


def started(config: Path, *arguments: str, **more: str) -> "subprocess.Popen[str]":
    """A running command, in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "worker", *arguments],
        cwd=ROOT,
        env=environ(config, **more),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def command(config: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a pipe and wait for its end."""
    process = started(config, *arguments, **more)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def on_terminal(
    config: Path, *arguments: str, columns: int = 80, lines: int = 24, answer: str = "", meanwhile: Act = lambda: None
) -> str:
    """What a person sees of a command on a terminal of that size, without colours.

    `answer`: what they type when asked; `meanwhile`: what happens while they think.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with os.fdopen(ours, "r+b", buffering=0) as screen:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", *arguments],
            cwd=ROOT,
            env=environ(config, TERM="xterm", COLUMNS=str(columns), LINES=str(lines)),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        try:
            while part := screen.read(65536):
                shown += part
                if b"[y/N]" in part:
                    meanwhile()
                    screen.write(answer.encode())
        except OSError:  # the last who had the terminal has closed it
            pass
        process.wait(60)
    return _ESCAPES.sub("", shown.decode()).replace("\r\n", "\n")
