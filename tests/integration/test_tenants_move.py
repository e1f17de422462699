"""A tenant moves from one ledger to another, by the commands of docs/deploy.md, with events in every state."""

import base64
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from sandbox.control import Sandbox
from schemas.event import EventState
from tests.commands import environ
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import ROOT, Valkey
from tests.stages import scores
from worker.cli.app import app
from worker.errors import ConfigurationError
from worker.ledger import moving, queries
from worker.ledger.audit.books import books
from worker.ledger.client import Scripts
from worker.ledger.processes import Presence, Process

ORIGINAL = certiverse("dlv-1", "reg-1", score=60)
RESCORED = certiverse("dlv-1", "reg-1", score=70, rescore=True)
WAITS, BROKEN, UNKNOWN = certiverse("dlv-2", "reg-2"), b"not JSON", certiverse("dlv-3", "reg-3", exam="CERT-9")
KEYS = {
    "EXAMRELAY_PAYLOAD_KEYS": base64.b64encode(b"p" * 32).decode(),
    "EXAMRELAY_INDEX_KEY": base64.b64encode(b"i" * 32).decode(),
}


class Move:
    """Two ledgers, in two databases of one server: `old`, which is emptied of events, and `new`."""

    def __init__(self, valkey: Valkey, rhythm: Sandbox, folder: Path) -> None:
        self.rhythm, self.folder = rhythm, folder
        self.urls = {"old": valkey.url, "new": valkey.url.removesuffix("0") + "1"}
        self.clients = {name: redis.Redis.from_url(url) for name, url in self.urls.items()}
        # The file while the tenant moves: it is not in there.
        self.without = folder / "without.toml"

    @contextmanager
    def pipeline(self, name: str) -> Iterator[Pipeline]:
        """The steps, on one of the ledgers."""
        os.environ["REDIS_URL"] = self.urls[name]
        with pipeline_at(self.folder, self.rhythm) as found:
            text = (self.folder / "examrelay.toml").read_text()
            self.without.write_text(text.replace("tenants.acme", "tenants.beta"))
            yield found

    def command(self, ledger: str, *words: str, stdin: bytes = b"") -> tuple[int, bytes]:
        """Run `examrelay tenants …` as a process: its exit code, and what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "worker", "tenants", *words],
            cwd=ROOT,
            env=environ(self.without, REDIS_URL=self.urls[ledger]),
            input=stdin,
            capture_output=True,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    def here(self, ledger: str, *words: str, stdin: str = "", config: Path | None = None) -> None:
        """The same in this process. Raises what it raises."""
        variables = {"REDIS_URL": self.urls[ledger], "EXAMRELAY_CONFIG": str(config or self.without)}
        CliRunner().invoke(app, ["tenants", *words], input=stdin, env=variables, catch_exceptions=False)

    def keys(self, ledger: str) -> dict[bytes, tuple[bytes, int]]:
        """All of the tenant: each key's value and expiry."""
        client = self.clients[ledger]
        return {name: (client.dump(name), client.pexpiretime(name)) for name in client.scan_iter(f"er:{TENANT}:*")}


@pytest.fixture
def move(
    client: "redis.Redis", valkey: Valkey, rhythm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Move:
    monkeypatch.setenv("REDIS_URL", valkey.url)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return Move(valkey, rhythm, tmp_path)


def lives(client: "redis.Redis", digest: str) -> None:
    """A worker that is in the register."""
    Scripts(client)("seen", *Presence(Process("worker", "worker@host", digest)).arguments())


def test_a_tenant_moves_with_all_that_is_known_of_it(move: Move) -> None:
    move.rhythm.seed(ORG, [registration("reg-1"), registration("reg-2"), registration("reg-3")])
    with move.pipeline("old") as old:
        (synced,) = old.run(ORIGINAL)
        stopped = {event.state for event in old.run(BROKEN, UNKNOWN)}
        waits = old.deliver(WAITS)
        states = Counter(queries.counts(old.services.redis, TENANT))
    assert stopped == {EventState.DEAD, EventState.HELD}
    before = move.keys("old")
    assert any(at > 0 for _, at in before.values()), "some expire"

    code, exported = move.command("old", "export", TENANT)
    assert code == 0, exported
    assert move.command("new", "import", TENANT, stdin=exported) == (0, b"")
    assert move.keys("new") == before == move.keys("old")
    assert queries.tenants(move.clients["old"]) == [], "the sweep of the old ledger passes over it"

    with move.pipeline("new") as new:
        at = new.services
        assert books(at.redis, TENANT, new.ledger.sealer).differences == ()
        assert Counter(queries.counts(at.redis, TENANT)) == states
        assert new.deliver(ORIGINAL) == synced.id, "the same bytes are the same event"
        assert new.event(synced.id).receipts == 2
        (copy,) = new.run(ORIGINAL + b" ")
        assert copy.state is EventState.DUPLICATE, "the sitting is known"
        assert new.event(waits).state is EventState.SYNCED, "what waited went on"
        (rescored,) = new.run(RESCORED)
        assert (rescored.state, rescored.result) == (EventState.SYNCED, "written")
        assert books(at.redis, TENANT, new.ledger.sealer).differences == ()
        assert scores(new) == [60, 70]


def test_it_moves_only_while_nobody_works_for_it(move: Move) -> None:
    with move.pipeline("old") as old:
        old.deliver(WAITS)
        with_it = old.services.tenants.digest
    lives(move.clients["old"], with_it)
    for config in (move.without, move.folder / "examrelay.toml"):
        with pytest.raises(ConfigurationError, match="take it out of the file"):
            move.here("old", "export", TENANT, config=config)
    assert queries.tenants(move.clients["old"]) == [TENANT]


def test_half_an_export_another_index_key_and_a_known_tenant_are_refused(move: Move) -> None:
    with move.pipeline("old") as old:
        old.run(WAITS)
    old_client, new = move.clients["old"], move.clients["new"]
    rows = [*moving.take_out(old_client, TENANT)]

    new.set("er:index_key", "0123456789abcdef ")
    with pytest.raises(ConfigurationError, match="another EXAMRELAY_INDEX_KEY"):
        moving.bring_in(new, TENANT, iter(rows))
    assert (move.keys("new"), new.delete("er:index_key")) == ({}, 1)
    with pytest.raises(ConfigurationError, match="holds nothing"):
        moving.bring_in(new, TENANT, iter([]))

    lines = [json.dumps(row) for row in rows[:5]]
    with pytest.raises(ConfigurationError, match="the end is missing"):
        move.here("new", "import", TENANT, stdin="\n".join(lines)[:-9])
    assert (len(move.keys("new")), queries.tenants(new)) == (3, []), "a ledger does not know what is not all there"

    moving.bring_in(new, TENANT, iter(rows))
    assert queries.tenants(new) == [TENANT]
    with pytest.raises(ConfigurationError, match="in this ledger already"):
        moving.bring_in(new, TENANT, iter(rows))
    moving.bring_in(old_client, TENANT, iter(rows))
    assert queries.tenants(old_client) == [TENANT], "called off: it is where it was"
