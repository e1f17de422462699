"""Names made of candidate data are HMACs under one key, which is the ledger's for as long as it lives."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import Event
from schemas.outcome import Source
from tests.pipeline import Pipeline, pipeline_at
from tests.running import ROOT, Valkey
from tests.tenants import ENVIRON, write_tenants
from worker.errors import ConfigurationError
from worker.ledger.identity import Identity, load_identity
from worker.ledger.keys import INDEX_KEY
from worker.ledger.sealed import Sealer

ONE, OTHER = bytes(range(32)), bytes(range(32, 64))
PROV = """
[tenants.acme.sources.prov]
credentials = [ { kind = "bearer", token = "env:ACME_READ" } ]
"""
CANDIDATE, EMAIL = "cand-4711-marked", "marked@example.org"


def prov(**more: str) -> bytes:
    return json.dumps(
        {"candidateId": CANDIDATE, "email": EMAIL, "examCode": "CERT-1", "result": "Pass"} | more
    ).encode()


@pytest.fixture
def provs(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline_at(tmp_path, rhythm, more=PROV) as built:
        yield built


def processed(pipeline: Pipeline, body: bytes, source: Source) -> Event:
    id = pipeline.deliver(body, source)
    pipeline.process()
    return pipeline.event(id)


def test_the_same_text_has_the_same_name_under_the_same_key_only() -> None:
    name = Identity(ONE).of(CANDIDATE)
    assert re.fullmatch("[a-z2-7]{26}", name)
    assert name == Identity(ONE).of(CANDIDATE)
    assert name not in (Identity(OTHER).of(CANDIDATE), Identity(ONE).of(CANDIDATE + "x"))


def test_a_version_still_says_what_it_is_of_and_its_digest_cannot_be_tried_out() -> None:
    named = Identity(ONE).version("r-1f3a9d0c2b4e5f6a7b8c9")
    assert re.fullmatch("r-1[a-z2-7]{16}", named)
    assert "f3a9d0c2" not in named
    assert named != Identity(OTHER).version("r-1f3a9d0c2b4e5f6a7b8c9")
    assert named[3:] != Identity(ONE).version("o-1f3a9d0c2b4e5f6a7b8c9")[3:]


def test_a_key_is_made_at_the_first_start_and_kept(client: "redis.Redis") -> None:
    first = load_identity(client, None, Sealer()).of(CANDIDATE)
    assert load_identity(client, None, Sealer()).of(CANDIDATE) == first
    client.flushall()
    assert load_identity(client, None, Sealer()).of(CANDIDATE) != first, "not a constant"


def test_processes_that_start_at_once_agree_on_one_key(client: "redis.Redis") -> None:
    with ThreadPoolExecutor(16) as starting:
        names = set(starting.map(lambda _: load_identity(client, None, Sealer()).of(CANDIDATE), range(64)))
    assert len(names) == 1


def test_a_key_that_was_given_is_not_kept(client: "redis.Redis") -> None:
    assert load_identity(client, ONE, Sealer()).of(CANDIDATE) == Identity(ONE).of(CANDIDATE)
    kept = client.get(INDEX_KEY)
    assert kept is not None
    assert ONE not in kept
    assert base64.b64encode(ONE) not in kept
    assert load_identity(client, ONE, Sealer()).of(CANDIDATE) == Identity(ONE).of(CANDIDATE)


def test_another_key_is_refused_and_it_is_said_that_it_never_changes_and_why(client: "redis.Redis") -> None:
    load_identity(client, ONE, Sealer())
    with pytest.raises(ConfigurationError) as caught:
        load_identity(client, OTHER, Sealer())
    told = str(caught.value)
    assert told.startswith("EXAMRELAY_INDEX_KEY (")
    assert "is not the key that this ledger began with" in told
    assert "It never changes: results and candidates would no longer be found" in told
    assert "Set the old one again." in told
    assert base64.b64encode(OTHER).decode() not in told


def test_a_key_given_to_a_ledger_that_has_made_its_own_is_refused(client: "redis.Redis") -> None:
    load_identity(client, None, Sealer())
    with pytest.raises(ConfigurationError, match="Unset it: the key is in Redis"):
        load_identity(client, ONE, Sealer())


def test_a_key_that_is_no_longer_given_is_asked_for(client: "redis.Redis") -> None:
    load_identity(client, ONE, Sealer())
    with pytest.raises(ConfigurationError, match=r"^EXAMRELAY_INDEX_KEY is not set, and this ledger began with one"):
        load_identity(client, None, Sealer())


def test_with_payload_keys_the_kept_key_is_sealed_also_when_they_came_later_or_were_rotated(
    client: "redis.Redis",
) -> None:
    first = load_identity(client, None, Sealer()).of(CANDIDATE)
    plain = (client.get(INDEX_KEY) or b"").partition(b" ")[2]
    assert len(base64.b64decode(plain)) == 32
    for sealer in (Sealer([ONE]), Sealer([OTHER, ONE]), Sealer([OTHER])):
        assert load_identity(client, None, sealer).of(CANDIDATE) == first
        assert plain not in (client.get(INDEX_KEY) or b"")
    with pytest.raises(ConfigurationError, match=r"index key kept in Redis cannot be opened: .*sealed under key"):
        load_identity(client, None, Sealer([ONE]))


@pytest.mark.parametrize("command", [("-m", "worker.receiver"), ("-m", "celery", "-A", "worker.celery", "beat")])
def test_no_process_starts_with_another_key(
    command: tuple[str, ...], client: "redis.Redis", valkey: Valkey, tmp_path: Path
) -> None:
    load_identity(client, ONE, Sealer())
    config = write_tenants(tmp_path, "http://127.0.0.1:1")
    environ = ENVIRON | {"REDIS_URL": valkey.url, "PORT": "0", "EXAMRELAY_CONFIG": str(config), "PATH": "/usr/bin"}
    environ["EXAMRELAY_INDEX_KEY"] = base64.b64encode(OTHER).decode()
    ended = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "is not the key that this ledger began with" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("who", [{}, {"candidateId": ""}], ids=["by candidate id", "by e-mail"])
def test_a_prov_sitting_is_known_by_its_hmac(provs: Pipeline, who: dict[str, str]) -> None:
    event = processed(provs, prov(examDate="2026-05-04T12:30:00Z", **who), Source.PROV)
    assert event.delivery is not None
    assert re.fullmatch("prov:[a-z2-7]{26}", event.delivery)
    assert event.delivery == f"prov:{provs.services.identity.of(delivery_of(who))}"
    for name in provs.services.redis.keys("*"):
        assert CANDIDATE.encode() not in name
        assert b"2026-05-04" not in name


def delivery_of(who: dict[str, str]) -> str:
    return "\n".join([who.get("candidateId", CANDIDATE) or EMAIL, "CERT-1", "2026-05-04T12:30:00+00:00"])


def test_the_same_prov_sitting_is_the_same_delivery_and_another_is_not(provs: Pipeline) -> None:
    first = processed(provs, prov(examDate="2026-05-04T12:30:00Z"), Source.PROV)
    again = processed(provs, prov(examDate="2026-05-04T12:30:00Z", ignored="x"), Source.PROV)
    later = processed(provs, prov(examDate="2026-05-05T12:30:00Z"), Source.PROV)
    assert (again.state, again.delivery) == ("duplicate", first.delivery)
    assert (later.state, later.delivery != first.delivery) == ("ready", True)
