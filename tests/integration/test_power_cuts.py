"""The power is cut at any instant of a Valkey's life, and only what it had fsynced is sure to survive: `power.py`.

A Valkey is traced while deliveries are recorded, worked on, and the append-only file is written anew. Then for each cut
a Valkey is started, as `up` starts it, on what a disk may hold at that instant: every event whose record had been
answered must be there, and `audit` must account for all. With EXAMRELAY_FULL=1 (`make proofs`) the power is cut a
thousand times; else at a seeded sample of the same notes.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
import redis

from sandbox.control import Sandbox
from tests.events import registration
from tests.integration.test_power_cut import started
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.power import Disk, Moment, Tail, command, moments
from tests.running import free_port, wait_until
from tests.samples import big_certiverse
from tests.stages import seed
from worker.ledger.audit.books import books
from worker.ledger.client import script_text
from worker.local import append_only, valkey

FULL = os.environ.get("EXAMRELAY_FULL") == "1"
CUTS, SENDERS, EACH, REWRITES = (1000, 3, 60, 6) if FULL else (14, 2, 12, 2)
pytestmark = pytest.mark.external


class Life(NamedTuple):
    """What was noted of a Valkey's life."""

    folder: Path
    before: Path
    moments: list[Moment]
    record: str
    #: The events whose senders were answered.
    accepted: set[str]


@contextlib.contextmanager
def traced(folder: Path, notes: Path) -> Iterator[str]:
    """Valkey on this folder, its calls noted. Gives its URL. Ended by SIGKILL."""
    url = valkey.configure(folder, free_port())
    process = subprocess.Popen(command(folder, notes), stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        with redis.Redis.from_url(url) as client:
            wait_until(client.ping, 20, "Valkey")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.fixture(scope="module")
def life(running_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Senders deliver, a worker works, and meanwhile the append-only file is written anew."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    place = tmp_path_factory.mktemp("life")
    folder, before = place / "valkey", place / "before"
    with started(folder):
        pass  # makes its files
    shutil.copytree(folder / "appendonlydir", before / "appendonlydir")
    running_sandbox.reset()
    with traced(folder, place / "notes") as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_URL", url)
        with pipeline_at(place, running_sandbox) as pipeline, redis.Redis.from_url(url) as client:
            accepted = _live(pipeline, client)
            record = client.script_load(script_text("record"))
    return Life(folder, before, moments(place / "notes"), record, accepted)


def _live(pipeline: Pipeline, client: "redis.Redis") -> set[str]:
    """Returns the events whose senders were answered."""
    accepted, bodies = set[str](), seed(pipeline, SENDERS * EACH)
    bodies[:: SENDERS * 4] = [big_certiverse(40 + number) for number in range(len(bodies[:: SENDERS * 4]))]
    pipeline.rhythm.seed(ORG, [registration("reg-7f3a", exam_id="exam-1")])

    def deliver(number: int) -> None:
        for body in bodies[number::SENDERS]:
            accepted.add(pipeline.deliver(body))

    with ThreadPoolExecutor(SENDERS) as pool:
        senders = [pool.submit(deliver, number) for number in range(SENDERS)]
        for number in range(REWRITES):
            enough = (number + 1) * len(bodies) // (REWRITES + 1)
            wait_until(lambda enough=enough: len(accepted) >= enough, 60, "deliveries")
            client.bgrewriteaof()
            pipeline.sync()
            wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], 60, "the rewrite")
        for sender in senders:
            sender.result()
    return accepted


def test_the_notes_have_each_event_and_each_byte(life: Life) -> None:
    """Else the cuts would show nothing."""
    disk = Disk(life.folder, life.before, life.record)
    for moment in life.moments:
        disk.play(moment)
    assert {id.decode() for id in disk.accepted} == life.accepted
    files = life.folder / "appendonlydir"
    assert {name for name in disk.names if name.startswith(files.name)} == {
        f"{files.name}/{path.name}" for path in files.iterdir()
    }
    for path in files.iterdir():
        assert disk.names[f"{files.name}/{path.name}"].data == path.read_bytes()


def test_after_a_power_cut_at_any_instant_no_accepted_event_is_missing(
    life: Life, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    disk, how = Disk(life.folder, life.before, life.record), random.Random(7)
    counted = Counter[str]()
    places = _places(life, how)
    for number, moment in enumerate(life.moments):
        disk.play(moment)
        for tail in places.get(number, ()):
            folder = tmp_path / "valkey"
            disk.survives(folder, tail, how)
            counted.update(_kinds(disk, tail))
            try:
                counted.update(_starts_whole(folder, disk.accepted))
            except AssertionError as error:
                error.add_note(f"cut behind moment {number}, {moment.call[:4]}; tail: {tail}")
                raise
            shutil.rmtree(folder)
    assert counted["cuts"] == CUTS
    assert min(counted["in unsynced bytes"], counted["while rewriting"]) > CUTS / 4
    record_property("power cuts", dict(counted))


def _places(life: Life, how: random.Random) -> dict[int, list[Tail]]:
    """Behind which moments the power is cut, and what survives of the rest: most where something is unsure."""
    disk, kinds = Disk(life.folder, life.before, life.record), dict[str, list[int]]()
    for number, moment in enumerate(life.moments):
        disk.play(moment)
        for kind in _kinds(disk, "none"):
            kinds.setdefault(kind, []).append(number)
    places: dict[int, list[Tail]] = {}
    for cut in range(CUTS):
        kind = ("in unsynced bytes", "while rewriting", "cuts")[cut % 3]
        places.setdefault(how.choice(kinds[kind]), []).append(how.choice(get_args(Tail)))
    return places


def _kinds(disk: Disk, tail: Tail) -> list[str]:
    kinds = {"in unsynced bytes": bool(disk.unsure), "while rewriting": disk.rewriting, "names unsure": disk.changes}
    return ["cuts", f"tail: {tail}", *(name for name, holds in kinds.items() if holds)]


def _starts_whole(folder: Path, accepted: set[bytes]) -> list[str]:
    """Start on what survived and compare. Returns what had to be done first."""
    done = ["zeros cut off"] if append_only.mend(folder) else []
    try:
        with started(folder) as client:
            _compare(client, accepted)
    except AssertionError:
        advice = append_only.advice(folder)
        if not advice:
            raise
        (typed,) = (line for line in advice.splitlines() if line.startswith("  mv "))
        subprocess.run(["/bin/sh", "-c", typed], check=True)
        done.append("advice followed")
        with started(folder) as client:
            _compare(client, accepted)
    return done


def _compare(client: "redis.Redis", accepted: set[bytes]) -> None:
    found = {key.rpartition(b":")[2] for key in client.scan_iter(f"er:{TENANT}:event:*", count=1000)}
    assert accepted - found == set()
    kept = books(client, TENANT)
    assert (kept.differences, kept.accepted, kept.accounted) == ((), len(found), len(found))
