"""One person is erased, also where nothing was read: from bodies in any usual encoding, strays, queue entries."""

import base64
import gzip
import json
import os
import quopri
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from kombu.utils.json import dumps
from typer.testing import CliRunner

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from schemas.outcome import Source
from tasks.operator.forgetting import search
from tests.events import certiverse, registration
from tests.integration.test_trace import BOB, holds, ids
from tests.marked import OTHER, dump
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from worker.cli.app import app
from worker.ledger import queries, strays
from worker.ledger.keys import MALFORMED
from worker.ledger.sealed import Sealer

EMAIL = "Ada.Lovelace+x@example.org"
LINE = json.dumps({"candidate": {"email": EMAIL}, "exam": ["CERT-1"], "note": "nobody\nelse"})
#: A body that cannot be read as a result, by how it was sent.
BODIES = {
    "cut short": LINE[:-20],
    "another shape": LINE,
    "upper case": LINE.upper(),
    "JSON escapes": '{"email": "' + "".join(f"\\u{ord(letter):04x}" for letter in EMAIL) + '"',
    "after an escaped line": json.dumps(f"from:\n{EMAIL}"),
    "JSON in JSON": json.dumps({"payload": LINE.replace("@", "\\u0040")}),
    "percent": f"payload={quote(LINE, safe='')}",
    "percent twice": f"payload={quote(quote(LINE, safe=''), safe='')}",
    "quoted-printable": quopri.encodestring(LINE.encode()).replace(b"@", b"=40"),
    "entities": f"<?xml version='1.0'?><a>{EMAIL.replace('@', '&#64;')}</a>",
    "base64": base64.b64encode(b"xy" + LINE.encode()),
    "base64 for URLs": base64.urlsafe_b64encode(f"{LINE}\u00ff\u00fe".encode()),
    "base64 in lines": base64.encodebytes(LINE.encode() * 3),
    "gzip": gzip.compress(LINE.encode()),
    "gzip in base64": b'"' + base64.b64encode(gzip.compress(LINE.encode())),
    "UTF-16": LINE.encode("utf-16"),
    "Latin-1": f"Müller, {EMAIL}".encode("latin-1"),
}
#: Bodies that are somebody else's, or nobody's.
OTHERS = ("no JSON", '{"email": "bob@example.org"}', "ada@example.org", "Ada Lovelace", "x" * 100)


@pytest.fixture
def forget(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """The command, on the pipeline's ledger: exit code, standard output and error."""
    monkeypatch.setenv("EXAMRELAY_CONFIG", str(pipeline.services.settings.config))
    monkeypatch.setenv("EXAMRELAY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("USER", "op")

    def run(candidate: str, *more: str, typed: str = "") -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["forget", "--candidate", candidate, "--yes", *more], input=typed)
        return done.exit_code, done.stdout, done.stderr

    return run


def encoded(body: str | bytes) -> bytes:
    return body.encode() if isinstance(body, str) else body


def personal(client: "redis.Redis") -> set[str]:
    """The kinds of keys in which anything of `BODIES` is found, however it is written there."""
    found = set()
    for name, parts in dump(client).items():
        for body in BODIES.values():
            if any(encoded(body)[:200] in part for part in parts):
                found.add(name.rpartition(":")[0])
    return found


def test_a_person_is_found_in_bodies_of_every_encoding_and_nobody_else_is_touched(
    pipeline: Pipeline, forget: Callable[..., tuple[int, str, str]]
) -> None:
    theirs = {name: pipeline.run(encoded(body))[0] for name, body in BODIES.items()}
    others = [pipeline.run(encoded(body))[0] for body in OTHERS]
    assert {event.state for event in (*theirs.values(), *others)} == {EventState.DEAD}
    assert personal(pipeline.services.redis) == {f"er:{TENANT}:payload"}
    code, said, wrong = forget(EMAIL.lower())
    assert (code, wrong) == (0, "")
    assert said.count("found by what it holds") == len(BODIES)
    assert said.endswith(f"{len(BODIES)} events to forget\n{len(BODIES)} forgotten\n")
    assert EMAIL.lower() not in said.lower()
    for name, event in theirs.items():
        after = pipeline.event(event.id)
        assert (after.state, after.reason, after.detail) == (EventState.DISCARDED, Reason.FORGOTTEN, None), name
    assert [pipeline.event(event.id).state for event in others] == [EventState.DEAD] * len(OTHERS)
    assert all(pipeline.ledger.payload(TENANT, event.id) for event in others)
    assert personal(pipeline.services.redis) == set()
    holds(pipeline)


def test_what_was_forgotten_is_not_stored_again_when_it_is_delivered_again(
    pipeline: Pipeline, forget: Callable[..., tuple[int, str, str]]
) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    bodies = [certiverse(), certiverse("dlv-2", exam="CERT-9"), *map(encoded, BODIES.values())]
    events = [pipeline.run(body)[0] for body in bodies]
    message = dumps([["acne", "certiverse", LINE], {}]).encode()
    stray = strays.keep(pipeline.services.redis, pipeline.ledger.sealer, "no such tenant", "task", message)
    assert forget("ada@example.org")[0] == forget(EMAIL)[0] == 0
    before = len(pipeline.services.redis.keys("*"))
    again = [pipeline.run(body)[0] for body in bodies]
    assert strays.keep(pipeline.services.redis, pipeline.ledger.sealer, "no such tenant", "task", message) == stray
    assert [event.id for event in again] == [event.id for event in events]
    assert {event.state for event in again} == {EventState.SYNCED, EventState.DISCARDED}
    assert {(event.receipts, event.reason) for event in again} == {(2, Reason.FORGOTTEN)}
    assert not any(pipeline.ledger.payload(TENANT, event.id) for event in events)
    assert strays.page(pipeline.services.redis)[0] == []
    assert personal(pipeline.services.redis) == set()
    assert ids(pipeline, "stu-1") == []
    assert len(pipeline.services.redis.keys("*")) == before
    holds(pipeline)


def test_strays_and_entries_that_are_no_messages_are_searched_page_by_page(
    pipeline: Pipeline, forget: Callable[..., tuple[int, str, str]]
) -> None:
    client, sealer = pipeline.services.redis, pipeline.ledger.sealer
    for number in range(200):
        whose = EMAIL if number % 50 == 0 else f"somebody-{number}@example.org"
        for body in (f"{whose} {number}", f"{whose} {number}".encode()):  # bytes are base64 in a message
            padding = os.urandom(300).hex()  # what is small Redis would give all at once
            content = dumps([["acne", "certiverse", body], {"padding": padding}]).encode()
            strays.keep(client, sealer, "no such tenant", "task", content)
        client.lpush(MALFORMED, strays.parked(client, sealer, f"{number} {whose}".encode()))
    client.lpush(MALFORMED, sealer.seal(EMAIL.encode(), MALFORMED))  # of an earlier release
    code, said, wrong = forget(EMAIL)
    assert (code, wrong) == (0, "")
    assert said.endswith("13 events to forget\n13 forgotten\n")
    assert (queries.stray_count(client), queries.malformed(client)) == (392, 196)
    assert not any(EMAIL.encode() in one for one in strays.malformed(client, sealer))
    assert sum(" operator:op forget " in act for act in strays.acts(client)) == 13


def test_what_cannot_be_decided_is_shown_and_not_erased(
    pipeline: Pipeline, forget: Callable[..., tuple[int, str, str]]
) -> None:
    client = pipeline.services.redis
    (known,) = pipeline.run(certiverse(exam="CERT-9"))
    bodies = (b"stu-1-2 sat it", b"xstu-1 sat it", b"from 17", b"stu-1.5")
    perhaps = [pipeline.run(body)[0].id for body in bodies]
    (closed,) = pipeline.run(b"of whom?")
    client.set(f"er:{TENANT}:payload:{closed.id}", Sealer([OTHER]).seal(b"stu-1", closed.id))
    stray = strays.keep(client, Sealer([OTHER]), "no such tenant", "task", b"stu-1")
    code, said, wrong = forget("stu-1", "--candidate", "ada@example.org", "--candidate", "17")
    assert (code, said) == (1, "1 event to forget\n1 forgotten\n")
    for id in (*perhaps, closed.id, stray):
        assert wrong.count(f"not decided, and not erased: {id}.") == 1
    assert wrong.count("it cannot be opened: sealed under key") == 2
    assert [pipeline.event(id).state for id in (*perhaps, closed.id)] == [EventState.DEAD] * 5
    assert pipeline.event(known.id).reason is Reason.FORGOTTEN


def test_an_id_too_short_to_tell_erases_no_body(
    pipeline: Pipeline, forget: Callable[..., tuple[int, str, str]]
) -> None:
    (whole,) = pipeline.run(b"candidate 17")
    (part,) = pipeline.run(b"candidate 1723")
    code, said, wrong = forget("17")
    assert (code, said) == (1, "0 events to forget\n")
    assert whole.id in wrong
    assert part.id not in wrong


def test_an_event_that_is_not_read_yet_waits_for_its_names(
    pipeline: Pipeline, forget: Callable[..., tuple[int, str, str]]
) -> None:
    """What it says counts then, not what stands in it: another person's result must not be lost."""
    mine = pipeline.deliver(certiverse(exam="CERT-9"))
    mentions = json.loads(certiverse("dlv-2", exam="CERT-9", **BOB))
    mentions["examReservation"] = {"notes": "shares a desk with ada@example.org"}
    other = pipeline.deliver(json.dumps(mentions).encode())
    code, said, wrong = forget("ada@example.org")
    assert (code, said) == (1, "0 events to forget\n")
    assert [f"{id}. it is not read yet" in wrong for id in (mine, other)] == [True, True]
    pipeline.sync()
    assert forget("ada@example.org") == (0, "1 event to forget\n1 forgotten\n", "")
    assert pipeline.event(mine).reason is Reason.FORGOTTEN
    assert pipeline.event(other).state is EventState.HELD
    holds(pipeline)


def test_a_message_that_is_no_result_is_searched(
    client: "redis.Redis", rhythm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = (
        '[tenants.acme.sources.drillster]\ncredentials = [ { kind = "basic", user = "d", password = "env:ACME_READ" } ]'
    )
    with pipeline_at(tmp_path, rhythm, more=tables) as pipeline:
        asked = {"eventType": "QUESTION_ANSWERED", "eventId": "e", "user": {"emailAddress": EMAIL}}
        id = pipeline.deliver(json.dumps(asked).encode(), Source.DRILLSTER)
        pipeline.sync()
        assert pipeline.event(id).state is EventState.IGNORED
        _, (one,), _ = search(pipeline.services, [TENANT], [EMAIL])
        assert one.id == id


def test_values_that_a_pruned_event_wrote_go_with_the_person(pipeline: Pipeline) -> None:
    """The registration outlives the event that wrote it, when another came to it since."""
    client: Any = pipeline.services.redis
    pipeline.rhythm.seed(ORG, [registration()])
    (wrote,) = pipeline.run(certiverse())
    (tried,) = pipeline.run(certiverse("dlv-2", score=50, completed="2026-05-05T00:00:00Z"))
    assert (wrote.result, tried.reason) == ("written", Reason.REGISTRATION_SETTLED)
    for name in ("event", "payload"):
        client.delete(f"er:{TENANT}:{name}:{wrote.id}")  # as when it was pruned
    assert client.hget(f"er:{TENANT}:registration:reg-1", "values")
    client.hset(f"er:{TENANT}:event:{tried.id}", "registration", "reg-1")
    assert pipeline.ledger.forget(TENANT, tried.id, "op")[0]
    assert client.hget(f"er:{TENANT}:registration:reg-1", "values") is None


def test_the_candidate_is_read_from_stdin_so_that_no_list_of_processes_shows_it(
    pipeline: Pipeline, forget: Callable[..., tuple[int, str, str]]
) -> None:
    (held,) = pipeline.run(certiverse(exam="CERT-9"))
    assert forget("-", typed="stu-1\n")[:2] == (0, "1 event to forget\n1 forgotten\n")
    assert pipeline.event(held.id).reason is Reason.FORGOTTEN
