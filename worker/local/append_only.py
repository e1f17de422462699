"""The append-only files of our own Valkey after a power cut: what it cannot start from, or would start without.

Valkey itself cuts off half a command at the end (`aof-load-truncated`). What a file system may leave besides are zero
bytes behind the last write (valkey-io/valkey#1148); no whole command ends in one. Only these are cut here.
"""

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import IO, Final

from worker.errors import ConfigurationError

_LISTED: Final = re.compile(r"^file (\S+) seq ([0-9]+) type ([bih])", re.MULTILINE)
_INCREMENT: Final = re.compile(r"appendonly\.aof\.([0-9]+)\.incr\.aof")
_BLOCK: Final = 64 * 1024
#: Of a line that tells how many or how long, or of an annotation.
_LONGEST_LINE: Final = 128


def mend(folder: Path) -> str:
    """Cut zero bytes off the end. `folder`: Valkey's. Returns what was done, in one line; empty: nothing.

    Raises ConfigurationError: files that Valkey would start without, and what they hold would be missing.
    """
    if not _files(folder).exists():
        return ""
    _complete(folder)
    increments = _increments(folder)
    if not increments or not (zeros := _zeros(increments[-1])):
        return ""
    last, copy = increments[-1], folder / f"{increments[-1].name}.as-it-was"
    size = last.stat().st_size
    try:
        copy.touch(mode=0o600)
        shutil.copyfile(last, copy)
        _cut(last, size - zeros)
    except OSError as error:
        raise ConfigurationError(f"{last} ends in zero bytes and cannot be copied and cut: {error.strerror}.") from None
    return (
        f"had {zeros} zero bytes at the end of {last}, as a power cut leaves them: they were cut off. The file as it "
        f"was is {copy}; it holds personal data: delete it when all is well"
    )


def advice(folder: Path) -> str:
    """What to type when Valkey does not start: the first file with a damage, where, and how to go on without the rest.

    Empty when the files can be read to their ends. Reads all of them.
    """
    for file in _increments(folder) if _files(folder).exists() else ():
        good, size = _whole(file), file.stat().st_size
        if good < size:
            told = shlex.quote(str(file))
            return (
                f"{file} is damaged behind byte {good} of {size}, and results may stand behind that. If there is "
                "a backup, restore it (docs/operations.md). To start without what is behind it, type\n"
                f"  mv {told} {told}.damaged && head -c {good} {told}.damaged > {told}\n"
                "then start again, `examrelay audit`, and have the platforms send again what may be missing."
            )
    return ""


def _files(folder: Path) -> Path:
    return folder / "appendonlydir"


def _listed(folder: Path) -> list[tuple[Path, int, str]]:
    """Each file that the manifest lists, with its number and kind: base, increment, history."""
    try:
        told = (_files(folder) / "appendonly.aof.manifest").read_text(errors="replace")
    except FileNotFoundError:
        return []
    return [(_files(folder) / name, int(number), kind) for name, number, kind in _LISTED.findall(told)]


def _increments(folder: Path) -> list[Path]:
    return [file for file, _, kind in _listed(folder) if kind == "i" and file.exists()]


def _complete(folder: Path) -> None:
    """Raises ConfigurationError: Valkey would begin an empty ledger, or one without its newest part."""
    if (_files(folder) / "appendonly.aof.manifest").exists():
        newest = max((number for _, number, kind in _listed(folder) if kind == "i"), default=0)
        empty = [file for file, _, kind in _listed(folder) if kind == "b" and file.exists() and not file.stat().st_size]
    else:
        newest, empty = 0, []
    unlisted = [
        file
        for file in _files(folder).iterdir()
        if (named := _INCREMENT.fullmatch(file.name)) and int(named[1]) > newest and file.stat().st_size
    ]
    if found := unlisted + empty:
        raise ConfigurationError(
            f"{found[0]} is {'not in the manifest beside it' if unlisted else 'empty'}: Valkey would start without "
            "what it held. Put the whole folder back from a backup (docs/operations.md), or move it away to begin an "
            "empty ledger."
        )


def _zeros(file: Path) -> int:
    """How many zero bytes it ends in."""
    with file.open("rb") as read:
        end = size = read.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK)
            read.seek(start)
            rest = read.read(end - start).rstrip(b"\0")
            if rest:
                return size - start - len(rest)
            end = start
    return size


def _cut(file: Path, size: int) -> None:
    with file.open("r+b") as written:
        written.truncate(size)
        os.fsync(written.fileno())


def _whole(file: Path) -> int:
    """Where the last whole command ends, or the last whole transaction."""
    good, open_transaction = 0, False
    with file.open("rb") as read:
        while (name := _command(read)) is not None:
            open_transaction = name == b"MULTI" or (open_transaction and name != b"EXEC")
            if not open_transaction:
                good = read.tell()
    return good


def _command(read: IO[bytes]) -> bytes | None:
    """The name of the command that begins here (empty: an annotation), read to its end; None: there is no whole one."""
    line = read.readline(_LONGEST_LINE)
    if line.startswith(b"#") and line.endswith(b"\r\n"):
        return b""
    parts = _number(line, b"*")
    name = b""
    for part in range(parts or 0):
        length = _number(read.readline(_LONGEST_LINE), b"$")
        if length is None:
            return None
        if part == 0:
            name = read.read(length)
        else:
            read.seek(length, os.SEEK_CUR)
        if read.read(2) != b"\r\n":
            return None
    return name.upper() if parts else None


def _number(line: bytes, mark: bytes) -> int | None:
    told = re.fullmatch(re.escape(mark) + rb"([0-9]{1,12})\r\n", line)
    return int(told[1]) if told else None
