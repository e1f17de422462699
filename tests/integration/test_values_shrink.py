"""What is kept of an event and a registration is small, and leaves nothing of a longer text behind."""

import json
from pathlib import Path

import redis

from sandbox.control import Sandbox
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, pipeline_at
from worker.ledger.audit.books import books

FIELDS = ", ".join(f'{{ id = "exams__field-number-{number}__c", value = "details.examName" }}' for number in range(20))


def test_values_that_shrink_leave_nothing_behind(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> None:
    rhythm.seed(ORG, [registration()])
    with pipeline_at(tmp_path, rhythm, more=f"custom_fields = [ {FIELDS} ]") as wide:
        wide.run(certiverse())
    record = f"er:{TENANT}:registration:reg-1"
    assert len(json.loads(client.hget(record, "values") or "{}")["custom_field_values"]) == 20
    client.delete("examrelay")
    with pipeline_at(tmp_path, rhythm) as narrow:
        (event,) = narrow.run(certiverse(score=90, rescore=True))
    assert event.result == "written"
    assert set(json.loads(client.hget(record, "values") or "{}")) == {"status", "score", "exam_date"}


def test_a_final_event_holds_its_history_and_is_small(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> None:
    rhythm.seed(ORG, [registration()])
    with pipeline_at(tmp_path, rhythm) as pipeline:
        (event,) = pipeline.run(certiverse())
    assert [entry.move for entry in event.history] == ["record", "prepare", "intend", "settle"]
    assert client.object("encoding", f"er:{TENANT}:event:{event.id}") == b"listpack"
    assert not client.exists(f"er:{TENANT}:history:{event.id}")


def test_what_an_earlier_build_stored_in_pieces_is_read_audited_and_erased(
    client: "redis.Redis", rhythm: Sandbox, tmp_path: Path
) -> None:
    rhythm.seed(ORG, [registration()])
    with pipeline_at(tmp_path, rhythm) as pipeline:
        (event,) = pipeline.run(certiverse())
        for key, name in ((f"er:{TENANT}:event:{event.id}", "history"), (f"er:{TENANT}:registration:reg-1", "values")):
            whole = client.hget(key, name) or b""
            client.hdel(key, name)
            client.hset(
                key, mapping={f"{name}:{n}": whole[64 * n - 64 : 64 * n] for n in range(1, len(whole) // 64 + 2)}
            )
        assert pipeline.event(event.id).history == event.history
        assert books(client, TENANT).differences == ()
        (rescored,) = pipeline.run(certiverse(score=90, rescore=True))
        assert rescored.result == "written", "the values of the first are known as ours"
        pipeline.ledger.forget(TENANT, rescored.id, "ana")
    assert not [name for name in client.hkeys(f"er:{TENANT}:registration:reg-1") if name.startswith(b"values")]
