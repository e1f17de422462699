"""What a power cut leaves behind the last write, and our own Valkey started on it as `up` starts it."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.running import free_port, wait_until
from worker.errors import ConfigurationError
from worker.local import append_only, valkey

HALF = b"*3\r\n$3\r\nSET\r\n$4\r\nlost\r\n$8192\r\n" + b"x" * 700
ANNOTATED = b"#TS:1795833236\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n"
TRANSACTION = b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$4\r\nlost\r\n$1\r\n1\r\n"


@contextlib.contextmanager
def started(folder: Path) -> Iterator["redis.Redis"]:
    """Valkey on this folder, ended by SIGKILL. Raises AssertionError when it does not start."""
    url = valkey.configure(folder, free_port())
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([valkey.binary(), valkey.file(folder)], stdout=log)
    try:
        with redis.Redis.from_url(url) as client:
            wait_until(lambda: process.poll() is not None or client.ping(), 10, "Valkey")
            assert process.poll() is None, (folder / "log").read_text()
            yield client
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a Valkey has written that was killed: 50 keys, then 50 in a transaction, one ending in zero bytes."""
    folder = tmp_path_factory.mktemp("written") / "valkey"
    with started(folder) as client:
        for number in range(50):
            client.set(f"one-{number}", b"\0" * 64)
        with client.pipeline() as pipeline:
            for number in range(50):
                pipeline.set(f"two-{number}", b"\0" * 64)
            pipeline.execute()
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "valkey"))


def increment(folder: Path) -> Path:
    return folder / "appendonlydir" / "appendonly.aof.1.incr.aof"


def starts_whole(folder: Path) -> None:
    with started(folder) as client:
        assert client.dbsize() == 100
        assert client.get("two-49") == b"\0" * 64
        client.set("again", 1)
    with started(folder) as client:
        assert client.dbsize() == 101


@pytest.mark.parametrize(
    "tail", [b"\0", b"\0" * 4096, HALF + b"\0" * 100_000, b"*" + b"\0" * 8, TRANSACTION + b"\0" * 9]
)
def test_zeros_are_cut_off_after_a_copy_and_nothing_else_is_lost(folder: Path, tail: bytes) -> None:
    before = increment(folder).read_bytes() + tail
    increment(folder).write_bytes(before)
    said = append_only.mend(folder)
    assert f"had {tail.count(0)} zero bytes at the end of {increment(folder)}" in said
    assert "\n" not in said
    (copy,) = folder.glob("*.as-it-was")
    assert copy.read_bytes() == before
    assert copy.stat().st_mode & 0o077 == 0
    starts_whole(folder)


@pytest.mark.parametrize("tail", [b"", HALF, b"*", TRANSACTION, ANNOTATED, HALF[:25]])
def test_half_a_command_is_left_to_valkey(folder: Path, tail: bytes) -> None:
    with increment(folder).open("ab") as file:
        file.write(tail)
    assert append_only.mend(folder) == ""
    starts_whole(folder)


def test_a_file_of_zeros_alone_is_an_empty_one(folder: Path) -> None:
    increment(folder).write_bytes(b"\0" * 4096)
    assert "had 4096 zero bytes" in append_only.mend(folder)
    with started(folder) as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize(
    "tail", [b"garbage", b"\0" * 40 + b"garbage", b"\0" * 5 + HALF, TRANSACTION + b"garbage", ANNOTATED + b"\0*1\r\n"]
)
def test_anything_else_is_never_cut_and_what_to_type_goes_on_before_it(folder: Path, tail: bytes) -> None:
    good = increment(folder).stat().st_size + (len(ANNOTATED) if tail.startswith(ANNOTATED) else 0)
    with increment(folder).open("ab") as file:
        file.write(tail)
    assert append_only.mend(folder) == ""
    with pytest.raises(AssertionError, match="Bad file format"), started(folder):
        pass
    said = append_only.advice(folder)
    assert f"is damaged behind byte {good} of {increment(folder).stat().st_size}" in said
    (typed,) = (line for line in said.splitlines() if line.startswith("  mv "))
    subprocess.run(["/bin/sh", "-c", typed], check=True)
    starts_whole(folder)


def test_files_that_can_be_read_need_no_advice(folder: Path, tmp_path: Path) -> None:
    assert append_only.advice(folder) == ""
    assert append_only.advice(tmp_path / "nothing") == ""
    assert append_only.mend(tmp_path / "nothing") == ""


def _without_manifest(files: Path) -> None:
    (files / "appendonly.aof.manifest").unlink()


def _without_increment_in_it(files: Path) -> None:
    manifest = files / "appendonly.aof.manifest"
    manifest.write_text(manifest.read_text().partition("\n")[0] + "\n")


def _with_an_empty_base(files: Path) -> None:
    os.truncate(files / "appendonly.aof.1.base.rdb", 0)


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (_without_manifest, "incr.aof is not in the manifest"),
        (_without_increment_in_it, "incr.aof is not in the manifest"),
        (_with_an_empty_base, "base.rdb is empty"),
    ],
)
def test_valkey_is_not_started_without_a_part_that_it_would_not_miss(
    folder: Path, lose: Callable[[Path], None], said: str
) -> None:
    lose(folder / "appendonlydir")
    with pytest.raises(ConfigurationError, match=said):
        append_only.mend(folder)


def test_only_the_last_of_several_files_is_looked_at(folder: Path) -> None:
    """A rewrite makes new files; what it left of older ones, or an empty new one, is no fault."""
    with started(folder) as client:
        client.bgrewriteaof()
        wait_until(lambda: not increment(folder).exists(), 10, "the rewrite")
        client.set("more", 1)
    files = folder / "appendonlydir"
    (files / "appendonly.aof.1.incr.aof").write_bytes(b"of before\0")
    (files / "appendonly.aof.3.incr.aof").touch()
    with (files / "appendonly.aof.2.incr.aof").open("ab") as file:
        file.write(b"\0" * 10)
    assert "had 10 zero bytes" in append_only.mend(folder)
    with started(folder) as client:
        assert client.dbsize() == 101
