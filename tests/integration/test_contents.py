"""What a person may look at: what came in, what was written, what Rhythm said; and the history says who looked."""

import json
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from schemas.outcome import Source
from tasks.operator import contents
from tasks.operator.listing import Filters, search
from tasks.operator.plan import plan_event
from tasks.operator.results import result_of
from tasks.operator.steering import next_step, next_try
from tests.commands import command
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from worker.console.listings import paged
from worker.errors import ConfigurationError
from worker.ledger import queries
from worker.ledger.audit.books import books
from worker.rhythm.failures import Call, RhythmRejected, refusal

ANN = "operator:ann"
SAID = {"message": "score of Ada Example: 82.5 is not allowed"}


def looks(pipeline: Pipeline, id: str) -> list[tuple[str, str | None]]:
    return [(line.by, line.reason) for line in pipeline.event(id).history if line.move == "look"]


def refused(pipeline: Pipeline, **fault: Any) -> str:
    """A dead event, refused by Rhythm with `SAID`."""
    pipeline.rhythm.seed(ORG, [registration()])
    pipeline.rhythm.fault("status", kind="patch", status=422, body=SAID, **fault)
    (event,) = pipeline.run(certiverse())
    assert event.reason is Reason.RHYTHM_REJECTED
    return event.id


def test_a_payload_is_shown_as_it_came_and_who_looked_is_noted(pipeline: Pipeline) -> None:
    body = b'{"a": 82.50, "b": [1, {}, "x,\\"]"], "a": true, "\xc2\x9b31m": "\xe2\x80\xae"}'
    (event,) = pipeline.run(body)
    shown = contents.payload(pipeline.services, TENANT, event.id, ANN)
    assert shown == (
        '{\n  "a": 82.50,\n  "b": [\n    1,\n    {},\n    "x,\\"]"\n  ],\n  "a": true,\n  "\x9b31m": "\u202e"\n}'
    )
    assert looks(pipeline, event.id) == [(ANN, "payload")]
    assert books(pipeline.services.redis, TENANT, pipeline.ledger.sealer).differences == ()


def test_what_came_steers_no_terminal_and_is_exact_in_json(pipeline: Pipeline) -> None:
    config = pipeline.services.settings.config
    *others, hidden = pipeline.run(b'{"cut": ', b"\xff\xfe", b"\x1b[2J\xe2\x80\xae")
    assert [contents.payload(pipeline.services, TENANT, one.id, ANN) for one in others] == ['{"cut": ', ""]
    shown = command(config, "events", "show", hidden.id, "--payload").stdout
    assert shown.endswith("What came in:\n⟨U+001B⟩[2J⟨U+202E⟩\n")
    exact = json.loads(command(config, "events", "show", hidden.id, "--payload", "--json").stdout)
    assert exact["payload"] == "\x1b[2J\u202e"


def test_nothing_is_shown_or_noted_of_an_event_that_there_is_not(pipeline: Pipeline) -> None:
    for look in (contents.payload, contents.words, contents.written):
        assert look(pipeline.services, TENANT, "evt_nothing", ANN) is None
    assert pipeline.services.redis.keys("er:acme:history:evt_nothing") == []


def test_what_was_written_is_shown_with_its_base_and_by_which_event(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration(sys_version=4)])
    (first,) = pipeline.run(certiverse())
    written = contents.written(pipeline.services, TENANT, first.id, ANN)
    assert written is not None
    assert written.values == {"status": "passed", "score": "82.50", "exam_date": "2026-05-04T12:30:00Z"}
    assert (written.registration, written.base, written.sys_version, written.event) == ("reg-1", 4, 5, first.id)
    assert written.at == pipeline.event(first.id).history[-2].at
    (rescore,) = pipeline.run(certiverse(passed=False, score=10, rescore=True))
    before = contents.written(pipeline.services, TENANT, first.id, ANN)
    assert before is not None
    assert (before.values, before.base, before.event) == (None, None, rescore.id)
    assert looks(pipeline, first.id) == [(ANN, "written")] * 2


def test_rhythms_own_words_are_kept_beside_the_event_and_nowhere_else(
    pipeline: Pipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    id = refused(pipeline)
    assert json.loads(contents.words(pipeline.services, TENANT, id, ANN) or "") == SAID
    event = pipeline.event(id)
    assert looks(pipeline, id) == [(ANN, "words")]
    assert "Ada" not in str(event.model_dump())
    assert "Ada" not in "".join(capfd.readouterr())


def test_an_error_carries_them_in_no_text_and_no_pickle() -> None:
    error = refusal(Call.PATCH, 422, {}, datetime.now(UTC), b"Ada")
    assert isinstance(error, RhythmRejected)
    again = pickle.loads(pickle.dumps(error))
    assert (error.words, again.words, again.status) == ("Ada", "", 422)
    assert "Ada" not in f"{error!r}{error}{pickle.dumps(error)!r}"


def test_words_go_when_the_event_goes_on_or_the_person_is_forgotten(pipeline: Pipeline) -> None:
    for act in (pipeline.ledger.forget, lambda *given: pipeline.ledger.replay(*given, {})):
        id = refused(pipeline)
        act(TENANT, id, ANN)
        assert contents.words(pipeline.services, TENANT, id, ANN) is None
        pipeline.services.redis.flushdb()


def test_of_a_batch_each_event_keeps_what_was_said_of_it_alone(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration("reg-1"), registration("reg-2", student_id="stu-2")])
    pipeline.rhythm.fault("item_error", ids=["reg-2"], status=422)
    good, bad = pipeline.run(certiverse(), certiverse("dlv-2", "reg-2", student="stu-2", email="b@example.org"))
    assert (good.state, bad.reason) == (EventState.SYNCED, Reason.RHYTHM_REJECTED)
    assert contents.words(pipeline.services, TENANT, good.id, ANN) is None
    assert contents.words(pipeline.services, TENANT, bad.id, ANN)


def test_what_rhythm_made_of_a_write_is_kept_with_what_was_written(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    pipeline.rhythm.fault("alter", fields={"score": 83})
    (event,) = pipeline.run(certiverse())
    assert event.reason is Reason.RHYTHM_ALTERED
    kept = json.loads(contents.words(pipeline.services, TENANT, event.id, ANN) or "")
    assert kept == {"score": {"written": "82.50", "shown": "83"}}


def test_words_are_sealed_when_there_are_keys(
    client: "redis.Redis", rhythm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMRELAY_PAYLOAD_KEYS", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    with pipeline_at(tmp_path, rhythm) as pipeline:
        id = refused(pipeline)
        kept = client.hget(f"er:acme:event:{id}", "words")
        assert kept is not None
        assert b"Ada" not in kept
        assert "Ada" in (contents.words(pipeline.services, TENANT, id, ANN) or "")


def test_the_candidates_of_an_ambiguous_match_have_names_for_who_asks(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(
        ORG, [registration("reg-a", name="Ada Example", exam_date="2026-05-04"), registration("reg-b", first_name="A")]
    )
    (event,) = pipeline.run(certiverse(registration=None))
    assert event.reason is Reason.REGISTRATION_AMBIGUOUS
    plan = plan_event(pipeline.services, TENANT, event.id)
    assert plan is not None
    assert [one.name for one in plan.candidates] == [None, None]
    assert looks(pipeline, event.id) == []
    plan = plan_event(pipeline.services, TENANT, event.id, ANN)
    assert plan is not None
    found = {one.id: (one.exam_id, one.exam_date, one.status, one.name) for one in plan.candidates}
    assert found == {
        "reg-a": ("exam-1", "2026-05-04", "registered", "Ada Example"),
        "reg-b": ("exam-1", None, "registered", "A"),
    }
    assert looks(pipeline, event.id) == [(ANN, "plan")]


def test_a_result_is_told_as_on_the_telephone(pipeline: Pipeline) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    written, held, dead = pipeline.run(certiverse(), certiverse("dlv-2", exam="CERT-9"), b"not JSON")
    told = result_of(pipeline.services, written, ANN)
    assert (told.exam, told.sitting, told.verdict, told.score) == (
        "exam-1 (CERT-1, form-a)",
        "dlv-1",
        "passed",
        "82.50",
    )
    assert (told.registration, told.says) == ("reg-1", "written to registration reg-1")
    assert told.written_at is not None
    told = result_of(pipeline.services, held, ANN)
    assert (told.exam, told.verdict) == ("CERT-9, form-a, not in the exam map", "passed")
    assert told.says == "not written. It is held as unknown_exam: not in the exam map: CERT-9, form-a"
    assert told.next.startswith("add CERT-9 to the exam map, restart every process, then: examrelay replay --id evt_")
    assert (result_of(pipeline.services, dead, ANN).exam, looks(pipeline, dead.id)) == (None, [(ANN, "trace")])


def test_a_listing_goes_on_page_by_page_while_events_come_and_go(pipeline: Pipeline) -> None:
    ids = [pipeline.deliver(certiverse(f"dlv-{number}", exam="NEW")) for number in range(7)]
    pipeline.sync()
    held = Filters(reason="unknown_exam")
    at, seen, after = pipeline.services, list[str](), ""
    for _ in range(4):
        page = paged(at, held, [TENANT], 2, after)
        seen += [event.id for event in page.events]
        gone = page.events[-1 if len(seen) == 2 else 0]  # the one at which the list goes on, or another
        pipeline.ledger.discard(TENANT, gone.id, ANN, "gone")
        pipeline.deliver(certiverse(f"new-{len(seen)}", exam="NEW"))
        pipeline.sync()
        after = page.after
    assert (seen, after) == (sorted(ids, key=lambda id: (pipeline.event(id).received_at, id), reverse=True), "")
    with pytest.raises(ConfigurationError, match="no place in the list"):
        paged(at, held, [TENANT], 2, "x' or 1")


def test_a_page_looks_at_so_many_events_and_says_where_to_go_on(pipeline: Pipeline) -> None:
    """Few of many: each page looks at 4 events, finds some or none, and no event is skipped or shown twice."""
    ids = [pipeline.deliver(certiverse(f"dlv-{number}", exam="NEW")) for number in range(11)]
    old, new = ids[1], ids[-1]
    at, seen, parts, after = pipeline.services, list[str](), 0, "-"
    for id in (old, new):
        at.redis.hset(f"er:{TENANT}:event:{id}", "source", "prov")
    while after:
        page = paged(at, Filters(source=Source.PROV), [TENANT], 50, after.strip("-"), looked_at=4)
        assert len(page.events) < 2
        seen, parts, after = [*seen, *(event.id for event in page.events)], parts + 1, page.after
    assert (seen, parts) == ([new, old], 3)


def test_what_comes_next_is_when_rhythm_may_be_called_and_never_a_moment_that_has_passed(pipeline: Pipeline) -> None:
    at, id = pipeline.services, pipeline.deliver(certiverse())
    assert next_step(at, pipeline.event(id)).endswith("it is tried again as soon as a worker is free")
    pipeline.rhythm.seed(ORG, [registration()])
    at.gate(TENANT).close(Reason.CREDENTIALS_REFUSED, timedelta(hours=2))
    pipeline.process()
    event, opens = pipeline.event(id), queries.closed_until(at.redis, TENANT)
    assert (event.state, next_try(at, event)) == (EventState.READY, opens)
    assert opens is not None
    assert next_step(at, event).endswith(f"it is tried again at {opens:%Y-%m-%d %H:%M:%SZ}")


DRILLSTER = """
[tenants.acme.sources.drillster]
credentials = [ { kind = "basic", user = "drillster", password = "env:ACME_READ" } ]
"""
TICKET = b"""{"id": "att-1", "eventId": "ev-1", "eventType": "TEST_COMPLETED", "test": {"id": "T"},
"score": {"percentage": 9}, "started": "2026-05-04T11:00:00Z", "completed": "2026-05-04T12:00:00Z",
"user": {"id": "u-1", "name": "Jo"}}"""


def test_an_event_is_found_by_whatever_a_person_knows_of_it(
    client: "redis.Redis", rhythm: Sandbox, tmp_path: Path
) -> None:
    rhythm.seed(ORG, [registration()])
    with pipeline_at(tmp_path, rhythm, more=DRILLSTER) as pipeline:
        (event,) = pipeline.run(certiverse())
        other = pipeline.deliver(TICKET, Source.DRILLSTER)
        pipeline.sync()
        for words in (event.id, "stu-1", "ADA@example.org", "reg-1", "dlv-1"):
            assert [one.id for one in search(pipeline.services, [TENANT], words)] == [event.id], words
        for words in ("att-1", "ev-1"):
            assert [one.id for one in search(pipeline.services, [TENANT], words)] == [other], words
        assert search(pipeline.services, [TENANT], "nothing") == []


def test_the_command_notes_its_name(pipeline: Pipeline) -> None:
    id = refused(pipeline)
    config = pipeline.services.settings.config
    shown = command(config, "events", "show", id, "--payload", "--written", "--words")
    assert shown.returncode == 0, shown.stderr
    assert '"firstName": "Ada"' in shown.stdout
    assert "score of Ada Example" in shown.stdout
    assert looks(pipeline, id) == [(ANN, "payload"), (ANN, "written"), (ANN, "words")]
    assert "Ada" not in command(config, "events", "show", id).stdout
