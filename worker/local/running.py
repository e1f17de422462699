"""How commands find a running `examrelay up`, and the lock that keeps a second one from its data folder.

The lock ends with the process that holds it, however that ends: without the lock a file is from an earlier run.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from worker.errors import ConfigurationError

_LOCK, _FILE = "up.lock", "running.json"


@dataclass(frozen=True)
class Running:
    """Where things are, and the variables that a command beside it needs."""

    pid: int
    receiver: str
    flower: str
    console: str
    sandbox: str | None
    variables: dict[str, str]

    def announce(self, data: Path) -> None:
        """Everything is up: write it down for commands. For this user only: the variables hold secrets."""
        unfinished = data / f"{_FILE}.new"
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps(asdict(self)))
        unfinished.replace(data / _FILE)


@contextmanager
def lock(data: Path) -> Iterator[None]:
    """This data folder is ours until the block ends. Raises ConfigurationError when another process has it."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = (data / _LOCK).open("a+")
    except OSError as error:
        raise ConfigurationError(
            f"{data}: cannot be used ({error.strerror}). Set EXAMRELAY_DATA to a folder of yours."
        ) from None
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"{data}: another `examrelay up` runs on this data folder. End it first, or set EXAMRELAY_DATA to "
                "another folder."
            ) from None
        (data / _FILE).unlink(missing_ok=True)
        try:
            yield
        finally:
            (data / _FILE).unlink(missing_ok=True)


def find(data: Path) -> Running | None:
    """The `examrelay up` that runs on this data folder, once all of it is up; else None."""
    try:
        with (data / _LOCK).open() as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            return Running(**json.loads((data / _FILE).read_text()))
        except FileNotFoundError:
            return None
    except OSError:
        return None
    return None
