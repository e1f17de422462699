"""What child processes print: shown under their names, in colour on a terminal, and kept in a file each."""

import re
import sys
from pathlib import Path
from typing import IO, Final

_COLOURS: Final = (36, 32, 33, 35, 34, 96, 92, 93)
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*m")
#: A file larger than this at the start is set aside as NAME.log.1, in place of the one before.
_FULL: Final = 10 * 2**20
_WIDTH: Final = 8


class Output:
    """Lines by name. `quiet`: only messages about a child are shown; what it prints goes to its file alone."""

    def __init__(self, folder: Path, *, quiet: bool) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._quiet = quiet
        self._colours = sys.stdout.isatty()
        self._files: dict[str, IO[str]] = {}
        self._shown: dict[str, int] = {}

    def line(self, name: str, line: str) -> None:
        """A line that a child printed."""
        self._file(name).write(_ESCAPES.sub("", line) + "\n")
        if not self._quiet:
            self._show(name, line)

    def about(self, name: str, message: str) -> None:
        """A message of ours about a child."""
        self._show(name, f"{name} {message}")
        self._file("up").write(f"{name} {message}\n")

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _show(self, name: str, line: str) -> None:
        label = f"{name:<{_WIDTH}} |"
        if self._colours:
            number = self._shown.setdefault(name, len(self._shown))
            label = f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{label}\x1b[0m"
        sys.stdout.write(f"{label} {line}\n")
        sys.stdout.flush()

    def _file(self, name: str) -> IO[str]:
        if name not in self._files:
            path = self._folder / f"{name}.log"
            if path.exists() and path.stat().st_size > _FULL:
                path.replace(path.with_suffix(".log.1"))
            self._files[name] = path.open("a", buffering=1)  # written line by line
        return self._files[name]
