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
from worker.ledger import strays
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
    assert strays.page(pipeline.services.redis)[0] == []
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
    assert {one.id for one in strays.page(pipeline.services.redis)[0]} == {id, empty}


def test_a_stray_is_discarded_with_who_and_why(pipeline: Pipeline, run: Run) -> None:
    id = kept(pipeline, ["acne", "certiverse", "{}"], {})
    assert run("strays", "discard", id, "--why", "a test\nof ours").stdout == "1 discarded\n"
    assert strays.page(pipeline.services.redis)[0] == []
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


def test_strays_are_listed_part_by_part_while_they_come_and_go(pipeline: Pipeline, run: Run) -> None:
    client = pipeline.services.redis
    ids = [kept(pipeline, [str(number)], {}) for number in range(5)]
    client.zadd("er:strays.at", dict.fromkeys(ids, 1_700_000_000_000))  # at the same moment: by their ids then
    ids = sorted(ids, reverse=True)
    first = json.loads(run("strays", "list", "--limit", "2", "--json").stdout)
    assert [one["id"] for one in first["strays"]] == ids[:2]
    run("strays", "discard", ids[1], "--why", "a test")
    kept(pipeline, ["new"], {})
    then = json.loads(run("strays", "list", "--limit", "2", "--after", first["after"], "--json").stdout)
    assert [one["id"] for one in then["strays"]] == ids[2:4]
    last = json.loads(run("strays", "list", "--after", then["after"], "--json").stdout)
    assert ([one["id"] for one in last["strays"]], last["after"]) == (ids[4:], "")
    assert client.zcard("er:strays.at") == client.hlen("er:strays") == 5
    assert "no place in the list" in run("strays", "list", "--after", "x").stderr


def test_strays_that_an_earlier_release_kept_are_listed_by_when_they_came(pipeline: Pipeline) -> None:
    client = pipeline.services.redis
    ids = [kept(pipeline, [str(number)], {}) for number in range(3)]
    came = {one.id: one.at for one in strays.page(client)[0]}
    client.delete("er:strays.at")
    found, after = strays.page(client)
    assert ({one.id: one.at for one in found}, after) == (came, "")
    assert {*ids} == {*came}
