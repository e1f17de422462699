"""A model of a power cut: of all that a Valkey wrote, only what it had fsynced is sure to survive.

`strace` notes each call by which a Valkey writes, fsyncs, renames and answers, with the bytes and the times. `Disk`
plays the notes up to any instant, and says what a disk may hold then: of each file all that was fsynced and perhaps a
part of the rest, of the names in the folder those that were fsynced and perhaps some of the later ones.

The model knows: files that only grow, which is how Valkey writes its own; names that reach the disk in the order in
which they were given. It cannot show: a disk that says "written" before it is, or damages what it held already; a
folder `appendonlydir` that was made so lately that the folder above it does not have it; another file system's ways.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from worker.local import valkey

#: What survives of the bytes behind the last fsync: none; a part; a part and then zeros, to the end of the block; or
#: the later blocks and not the first.
Tail = Literal["none", "part", "zeros", "hole"]
TRACED = "openat,read,write,writev,fsync,fdatasync,rename,unlink"
BLOCK = 4096
_LINE = re.compile(r"(?P<at>\d+\.\d+) (?P<call>\w+)\((?P<told>.*)\) = (?P<gave>\d+)\S* <(?P<took>[\d.]+)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_PLACE = re.compile(r"(\d+)<((?:\\x[0-9a-f]{2})+)>")
_EVENT = re.compile(rb"evt_[a-z2-7]{26}")


class Call(NamedTuple):
    """A call of Valkey's to the system, from its begin to its end, in seconds."""

    begin: float
    end: float
    name: str
    #: The file of the file descriptor, or a socket.
    place: str
    #: Its texts: paths, or the bytes.
    texts: tuple[bytes, ...]
    told: str


class Moment(NamedTuple):
    """The begin or the end of a call."""

    at: float
    ends: bool
    call: Call


@dataclass(eq=False)
class Inode:
    """A file, whatever its name."""

    data: bytearray = field(default_factory=bytearray)
    synced: int = 0


def command(folder: Path, notes: Path) -> list[str]:
    """What starts a Valkey on this folder and notes its calls in `notes`."""
    options = ("-f", "-ff", "-ttt", "-T", "-y", "-xx", "-s", str(2**24), "-e", f"trace={TRACED}", "-o", str(notes))
    return ["strace", *options, str(valkey.binary()), str(valkey.file(folder))]


def moments(notes: Path) -> list[Moment]:
    """All that was noted, in order."""
    lines = (line for path in notes.parent.glob(f"{notes.name}.*") for line in path.read_text().splitlines())
    calls = [_call(found) for found in map(_LINE.fullmatch, lines) if found]
    both = [Moment(call.begin, False, call) for call in calls] + [Moment(call.end, True, call) for call in calls]
    return sorted(both, key=lambda moment: moment[:2])


def _call(found: re.Match[str]) -> Call:
    place, texts = _PLACE.search(found["told"]), tuple(map(_bytes, _TEXT.findall(found["told"])))
    if found["call"].startswith(("read", "write")):
        texts = (b"".join(texts)[: int(found["gave"])],)
    begin = float(found["at"])
    name = _bytes(place[2]).decode() if place else ""
    return Call(begin, begin + float(found["took"]), found["call"], name, texts, found["told"])


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


class Disk:
    """What a disk holds while the notes are played on it. Begins with what `folder` holds, all of it fsynced."""

    def __init__(self, folder: Path, before: Path, record: str) -> None:
        self._folder, self._record = folder, record.encode()
        self.names = {file: Inode(bytearray(path.read_bytes())) for file, path in _files(before)}
        for inode in self.names.values():
            inode.synced = len(inode.data)
        #: The names that are on the disk, and the changes to names since, oldest first: (old, new) names.
        self.kept = dict(self.names)
        self.changes: list[tuple[str | None, str | None, Inode]] = []
        #: By fsync under way: the file, or None for a folder; and how much of it was there.
        self._promised: dict[Call, tuple[Inode | None, int]] = {}
        self._asked: dict[str, bytes] = {}
        #: The events whose record was answered.
        self.accepted: set[bytes] = set()

    def play(self, moment: Moment) -> None:
        """Go on to this moment."""
        call = moment.call
        socket = "socket:" in call.place
        match call.name, moment.ends:
            case "read", True if socket:
                self._asked[call.place] = self._asked.get(call.place, b"") + call.texts[0]
            case "write" | "writev", False if socket:
                self._answer(self._asked.pop(call.place, b""), call.texts[0])
            case "write" | "writev", False if (name := self._name(call.place)) in self.names:
                self.names[name].data += call.texts[0]
            case "openat", True if "O_CREAT" in call.told:
                self._create(self._name(call.texts[-1].decode()))
            case "rename", False:
                old, new = (self._name(text.decode()) for text in call.texts)
                self._change(old, new, self.names[old])
            case "unlink", False if (name := self._name(call.texts[0].decode())) in self.names:
                self._change(name, None, self.names[name])
            case "fsync" | "fdatasync", _:
                self._sync(call, moment.ends)

    def _name(self, path: str) -> str:
        """Below the folder."""
        return path.removesuffix(" (deleted)").removeprefix(f"{self._folder}/")

    def _answer(self, asked: bytes, answer: bytes) -> None:
        if self._record in asked and not answer.startswith(b"-"):
            self.accepted |= set(_EVENT.findall(asked))

    def _create(self, name: str) -> None:
        if name not in self.names and not name.startswith("/"):
            self._change(None, name, Inode())

    def _change(self, old: str | None, new: str | None, inode: Inode) -> None:
        self.changes.append((old, new, inode))
        _rename(self.names, old, new, inode)

    def _sync(self, call: Call, ends: bool) -> None:
        """What was there when it began is on the disk when it ends. Of a folder: the names in it."""
        if not ends:
            inode = self.names.get(self._name(call.place))
            self._promised[call] = (inode, len(self.changes if inode is None else inode.data))
            return
        inode, there = self._promised.pop(call)
        if inode is not None:
            inode.synced = there
            return
        for change in self.changes[:there]:
            _rename(self.kept, *change)
        del self.changes[:there]

    @property
    def unsure(self) -> int:
        """How many bytes of the newest append-only file may be lost."""
        newest = max((name for name in self.names if name.endswith("incr.aof")), key=_number)
        return len(self.names[newest].data) - self.names[newest].synced

    @property
    def rewriting(self) -> bool:
        """Whether the append-only file is being written anew."""
        return sum(name.endswith("incr.aof") for name in self.names) > 1 or any("temp-" in name for name in self.names)

    def survives(self, folder: Path, tail: Tail, how: random.Random) -> None:
        """Write what a power cut leaves now to `folder`, which is made."""
        names = dict(self.kept)
        for change in self.changes[: how.randrange(len(self.changes) + 1)]:
            _rename(names, *change)
        for name, inode in names.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(inode.data[: inode.synced]) + _left(inode, tail, how))


def _left(inode: Inode, tail: Tail, how: random.Random) -> bytes:
    """What is left of the bytes that were not fsynced."""
    unsure = bytes(inode.data[inode.synced :])
    if tail == "none" or not unsure:
        return b""
    if tail == "hole":
        first = BLOCK - inode.synced % BLOCK
        return bytes(min(first, len(unsure))) + unsure[first:]
    part = unsure[: how.randrange(1, len(unsure) + 1)]
    if tail == "part":
        return part
    return part + bytes(-(inode.synced + len(part)) % BLOCK or 1)


def _rename(names: dict[str, Inode], old: str | None, new: str | None, inode: Inode) -> None:
    if old is not None:
        names.pop(old, None)
    if new is not None:
        names[new] = inode


def _number(name: str) -> int:
    return int(name.split(".")[-3])


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(folder)), path
