"""The append-only files of our own Valkey after a power cut: what it cannot start from, or would start without.

Valkey itself cuts off half a command at the end (`aof-load-truncated`). A file system may also leave zero bytes behind
the last write (valkey-io/valkey#1148), and Valkey does not start on those. No whole command ends in a zero byte, so
they can be cut off without losing anything. Nothing else is cut here.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

from worker.errors import ConfigurationError
from worker.local import valkey

_LISTED: Final = re.compile(r"^file (\S+) seq ([0-9]+) type ([bih])", re.MULTILINE)
_INCREMENT: Final = re.compile(r"appendonly\.aof\.([0-9]+)\.incr\.aof")
_CHECKED: Final = re.compile(r"\bsize=(?P<size>\d+), ok_up_to=(?P<good>\d+)\b")
_BLOCK: Final = 64 * 1024


def mend(folder: Path) -> str:
    """Cut zero bytes off the end of the newest file. `folder`: Valkey's.

    Returns what was done, in one line; empty when there was nothing to do. Raises ConfigurationError when Valkey would
    start without a file and what it holds.
    """
    if not _files(folder).exists():
        return ""
    _refuse_incomplete(folder)
    increments = _increments(folder)
    if not increments or not (zeros := _zeros_at_end(increments[-1])):
        return ""
    last, copy = increments[-1], folder / f"{increments[-1].name}.as-it-was"
    try:
        copy.touch(mode=0o600)
        shutil.copyfile(last, copy)
        with last.open("r+b") as file:
            file.truncate(last.stat().st_size - zeros)
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigurationError(f"{last} ends in zero bytes and cannot be copied and cut: {error.strerror}.") from None
    return (
        f"had {zeros} zero bytes at the end of {last}, as a power cut leaves them: they were cut off. The file as it "
        f"was is {copy}; it holds personal data: delete it when all is well"
    )


def advice(folder: Path) -> str:
    """What to type when Valkey does not start: the first damaged file, where, and how to go on without the rest.

    Empty when the files can be read to their ends. Reads all of them.
    """
    for file in _increments(folder):
        good, size = _check(file)
        if good < size:
            quoted = shlex.quote(str(file))
            return (
                f"{file} is damaged behind byte {good} of {size}, and results may stand behind that. If there is "
                "a backup, restore it (docs/operations.md). To start without what is behind it, type\n"
                f"  mv {quoted} {quoted}.damaged && head -c {good} {quoted}.damaged > {quoted}\n"
                "then start again, `examrelay audit`, and have the platforms send again what may be missing."
            )
    return ""


def _check(file: Path) -> tuple[int, int]:
    """How many bytes Valkey can read, and the size. Called by this name the server's program checks a file."""
    checked = subprocess.run(
        ["valkey-check-aof", file], executable=valkey.binary(), capture_output=True, text=True, check=False
    )
    found = _CHECKED.search(checked.stdout)
    return (int(found["good"]), int(found["size"])) if found else (0, 0)


def _files(folder: Path) -> Path:
    return folder / "appendonlydir"


def _manifest(folder: Path) -> list[tuple[Path, int, str]] | None:
    """Each file that the manifest lists, with its number and kind (b: base, i: increment); None without a manifest."""
    try:
        text = (_files(folder) / "appendonly.aof.manifest").read_text(errors="replace")
    except FileNotFoundError:
        return None
    return [(_files(folder) / name, int(number), kind) for name, number, kind in _LISTED.findall(text)]


def _increments(folder: Path) -> list[Path]:
    return [file for file, _, kind in _manifest(folder) or () if kind == "i" and file.exists()]


def _refuse_incomplete(folder: Path) -> None:
    """Raises ConfigurationError: Valkey would begin an empty ledger, or one without its newest part."""
    listed = _manifest(folder) or []
    newest = max((number for _, number, kind in listed if kind == "i"), default=0)
    for file in _files(folder).iterdir():
        named = _INCREMENT.fullmatch(file.name)
        if named and int(named[1]) > newest and file.stat().st_size:
            raise _missing(file, "not in the manifest beside it")
    for file, _, kind in listed:
        if kind == "b" and file.exists() and not file.stat().st_size:
            raise _missing(file, "empty")


def _missing(file: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{file} is {why}: Valkey would start without what it held. Put the whole folder back from a backup "
        "(docs/operations.md), or move it away to begin an empty ledger."
    )


def _zeros_at_end(path: Path) -> int:
    """How many zero bytes it ends in."""
    with path.open("rb") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK)
            file.seek(start)
            rest = file.read(end - start).rstrip(b"\0")
            if rest:
                return size - start - len(rest)
            end = start
    return size
