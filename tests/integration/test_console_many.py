"""A page of the console is as cheap with many waiting events as with few. Counted is what Redis did, not seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bench.ledger import load, stop
from sandbox.control import Sandbox
from tests.console_peer import BETA, USERS, Browser, console, signed_in
from tests.pipeline import TENANT, Pipeline, pipeline_at

PAGES = (
    "/",
    "/decide",
    "/events",
    "/events?state=held",
    "/events?state=dead&reason=invalid_json",
    "/decide/acme/held/registration_ambiguous",
    "/configuration",
)
#: A page of a group by its cause looks at as many as the causes are counted over.
FEW, MANY = 6_000, 18_000


@pytest.fixture
def ledger(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline_at(tmp_path, rhythm, more=BETA + USERS) as built:
        load(client, built.services.identity, TENANT, 100)
        stop(client, TENANT, FEW)
        yield built


def commands(client: "redis.Redis", ann: Browser, path: str) -> int:
    """How many commands Redis carried out for a page, those within scripts too."""
    client.config_resetstat()
    page = ann.get(path)
    assert page.status == 200, path
    told: dict[str, dict[str, int]] = client.info("commandstats")  # type: ignore[assignment]
    return sum(kept["calls"] for name, kept in told.items() if not name.startswith("cmdstat_config"))


def test_no_page_costs_more_when_more_events_wait(ledger: Pipeline, client: "redis.Redis") -> None:
    with console(ledger.services) as url, signed_in(url) as ann:
        few = {path: commands(client, ann, path) for path in PAGES}
        stop(client, TENANT, MANY - FEW, seed=3)
        many = {path: commands(client, ann, path) for path in PAGES}
        deep = ann.get("/events?state=held")
        for _ in range(3):
            after = deep.html.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
            deep = ann.get(after)
            assert deep.html.count("/events/acme/evt_") == 50
    # A place is found by halving, and which events are looked at differs by chance.
    assert {path: (few[path], many[path]) for path in PAGES if many[path] > 2 * few[path] + 20} == {}


def test_the_page_says_how_many_there_are_beyond_those_looked_at(ledger: Pipeline, client: "redis.Redis") -> None:
    with console(ledger.services) as url, signed_in(url) as ann:
        page = ann.get("/decide")
    assert page.heading == f"{FEW:,} results wait for a person"
    assert "Causes are counted over the newest 500 events of each tenant and state" in page.text


def test_one_act_takes_a_bounded_number_of_a_group(ledger: Pipeline, client: "redis.Redis") -> None:
    stop(client, TENANT, MANY - FEW, seed=3)
    with console(ledger.services) as url, signed_in(url) as ann:
        members = dict(ann.get("/").forms[0]["members"])
        members |= {
            "tenant": TENANT,
            "state": "dead",
            "reason": "invalid_json",
            "all": "1",
            "move": "discard",
            "why": "x",
        }
        shown = ann.post("/preview", members)
        count = int(client.hget("er:acme:counts", "dead:invalid_json"))  # type: ignore[arg-type]
        assert count > 1000
        assert shown.heading == "Set 1,000 results aside for good?"
        assert "one act takes 1,000 events at most" in shown.text
        done = ann.send(shown, "/act")
        assert done.heading.endswith("results were set aside")
    assert int(client.hget("er:acme:counts", "discarded")) == 1000  # type: ignore[arg-type]
