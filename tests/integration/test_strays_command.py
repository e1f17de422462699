"""What an operator does with strays (messages that name no known tenant or source), by the real command."""

import json
from collections.abc import Callable
from subprocess import CompletedProcess

import celery
import pytest
from kombu.utils.json import dumps

from schemas.event import EventState
from schemas.outcome import Source
from tasks.operator import unrecorded
from tasks.operator.overview import overview
from tests.commands import command
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline
from tests.scrape import Scrape
from worker.errors import ConfigurationError
from worker.health import readiness
from worker.ledger import misdirected, strays
from worker.ledger.keys import MALFORMED
from worker.queues import RECEIVE_QUEUE
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


@pytest.fixture
def sent(pipeline: Pipeline) -> list[bytes]:
    """What two Celery clients sent that name no queue: results to us, and a task of somebody else."""
    with celery.Celery(broker=pipeline.services.settings.redis.url, set_as_current=False) as client:
        client.send_task("theirs.task", args=["theirs"])
        client.send_task("tasks.receive", args=[TENANT, "certiverse", BODY.decode()])
        client.send_task("tasks.receive", kwargs={"tenant": "acne", "source": "certiverse", "body": BODY, "path": None})
        client.send_task("theirs.task", args=["theirs"])
    return pipeline.services.redis.lrange("celery", 0, -1)


def test_messages_on_the_default_queue_are_told_everywhere_with_what_to_type(
    pipeline: Pipeline, run: Run, sent: list[bytes]
) -> None:
    (told,) = misdirected.warning(pipeline.services.redis)
    assert told.startswith("messages on the queue celery, which nobody reads: 4. A client calls tasks.receive without")
    assert told.endswith('queue="examrelay.receive". To record them: examrelay strays receive celery')
    assert told in overview(pipeline.services)["warnings"]
    assert told in readiness(pipeline.services).warnings
    assert told in run("strays", "list").stdout
    assert told in run("dead", "list").stdout
    assert Scrape(pipeline.services)("misdirected") == 4
    assert run("strays", "show", "celery").stdout == f"{sent[2].decode()}\n{sent[1].decode()}\n"


def test_an_operator_moves_them_where_they_belong_and_leaves_what_is_another_s(
    pipeline: Pipeline, run: Run, sent: list[bytes]
) -> None:
    client = pipeline.services.redis
    done = run("strays", "receive", "celery")
    assert done.stdout == "2 messages are on the queue examrelay.receive now: a worker records them\n"
    assert client.lrange("celery", 0, -1) == [sent[0], sent[3]]
    moved = [json.loads(entry) for entry in client.lrange(RECEIVE_QUEUE, 0, -1)]
    assert [one["headers"] for one in moved] == [json.loads(entry)["headers"] for entry in sent[1:3]]
    address = {"exchange": "", "routing_key": "examrelay.receive"}
    assert [one["properties"]["delivery_info"] for one in moved] == [address] * 2, "or it would go back to `celery`"
    assert (misdirected.warning(client), Scrape(pipeline.services)("misdirected")) == ([], 0)
    assert strays.acts(client)[0].split()[1:] == ["operator:ann", "receive", "celery"]
    client.delete("celery", RECEIVE_QUEUE)


def test_or_discards_them(pipeline: Pipeline, run: Run, sent: list[bytes]) -> None:
    client = pipeline.services.redis
    assert run("strays", "discard", "celery", "--why", "tests").stdout == "2 discarded\n"
    assert client.lrange("celery", 0, -1) == [sent[0], sent[3]]
    assert client.llen(RECEIVE_QUEUE) == 0
    client.lpush("celery", b"no JSON", b"[]", *[sent[0]] * 120)
    assert misdirected.count(client) == 0, "nothing there is to us"
    client.rpush("celery", *[sent[1]] * 120)
    assert misdirected.take(client, None) == 120, "more than are looked at in one call"
    client.delete("celery")


def test_what_stands_for_several_is_no_stray(pipeline: Pipeline, run: Run) -> None:
    for id in ("malformed", "celery"):
        with pytest.raises(ConfigurationError, match="stands for several, and names no stray"):
            unrecorded.receive(pipeline.services, id, TENANT, Source.CERTIVERSE, "", "operator:ann")
    done = run("strays", "receive", "stray_x")
    assert (done.returncode, "with --tenant" in done.stderr) == (2, True)
