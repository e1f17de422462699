"""What an operator does with strays (messages that name no known tenant or source), by the real command."""

import json
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
from kombu.utils.json import dumps

from schemas.event import EventState
from schemas.outcome import Source
from tests.commands import command
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from worker.ledger import queries, strays
from worker.ledger.keys import MALFORMED
from worker.sources import event_id

Run = Callable[..., "CompletedProcess[str]"]
BODY = certiverse()


@pytest.fixture
def run(pipeline: Pipeline) -> Run:
    return lambda *arguments: command(pipeline.services.settings.config, *arguments)


def kept(pipeline: Pipeline, args: object, kwargs: object) -> str:
    content = dumps([args, kwargs]).encode()
    return strays.keep(pipeline.services.redis, pipeline.ledger.sealer, "no such tenant", "task-1", content)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (["acne", "certiverse", BODY.decode()], {}),
        ([], {"tenant": "acne", "source": "certiverse", "body": BODY, "path": None}),
    ],
    ids=["text by place", "bytes by name"],
)
def test_a_stray_is_recorded_as_if_it_had_been_sent_correctly(
    pipeline: Pipeline, run: Run, args: object, kwargs: object
) -> None:
    pipeline.rhythm.seed(ORG, [registration()])
    id = kept(pipeline, args, kwargs)
    assert id in run("strays", "list").stdout
    assert run("strays", "show", id).stdout == dumps([args, kwargs]) + "\n"
    done = run("strays", "receive", id, "--tenant", TENANT, "--source", "certiverse")
    event = event_id(TENANT, Source.CERTIVERSE, "", BODY)
    assert (done.returncode, done.stdout) == (0, f"{id} is {event} now, received\n")
    pipeline.process()
    pipeline.sync()
    assert pipeline.event(event).state is EventState.SYNCED
    assert queries.strays(pipeline.services.redis) == []
    (act,) = json.loads(run("strays", "list", "--json").stdout)["acts"]
    assert act.split()[1:] == ["operator:ann", "receive", id, event]


def test_a_stray_stays_when_it_cannot_be_recorded(pipeline: Pipeline, run: Run) -> None:
    id = kept(pipeline, ["acne", "certiverse", "{}"], {})
    for more, told in ((("--tenant", "acne"), "there is no such tenant"), (("--tenant", TENANT), "no such source")):
        done = run("strays", "receive", id, *more, "--source", "prov")
        assert (done.returncode, done.stdout) == (2, "")
        assert told in done.stderr
    empty = kept(pipeline, [], {"what": 1})
    done = run("strays", "receive", empty, "--tenant", TENANT, "--source", "certiverse")
    assert done.returncode == 2
    assert "it holds no result that can be read" in done.stderr
    assert {one.id for one in queries.strays(pipeline.services.redis)} == {id, empty}


def test_a_stray_is_discarded_with_who_and_why(pipeline: Pipeline, run: Run) -> None:
    id = kept(pipeline, ["acne", "certiverse", "{}"], {})
    assert run("strays", "discard", id, "--why", "a test\nof ours").stdout == "1 discarded\n"
    assert queries.strays(pipeline.services.redis) == []
    assert strays.acts(pipeline.services.redis)[0].endswith(f" operator:ann discard {id} a test of ours")
    again = run("strays", "discard", id, "--why", "again")
    assert again.returncode == 2
    assert f"there is no stray {id}" in again.stderr


def test_queue_entries_that_are_not_celery_messages_are_shown_and_discarded(pipeline: Pipeline, run: Run) -> None:
    client, sealer = pipeline.services.redis, pipeline.ledger.sealer
    client.lpush(MALFORMED, sealer.seal(b"garbage", MALFORMED), sealer.seal(b"more", MALFORMED))
    assert "2 queue entries are not Celery messages" in run("strays", "list").stdout
    assert run("strays", "show", "malformed").stdout == "more\ngarbage\n"
    assert run("strays", "discard", "malformed", "--why", "told them").stdout == "2 discarded\n"
    assert client.exists(MALFORMED) == 0
