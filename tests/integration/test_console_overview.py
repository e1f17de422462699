"""The console's first page says in words whether anything is wrong; a Redis that is away or full is told as it is."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import Reason
from tests.console_peer import BETA, USERS, Browser, console, signed_in
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import Valkey, wait_until
from worker.bootstrap import build
from worker.console.pictures import draw
from worker.ledger import hours, queries
from worker.ledger.processes import Presence, Process
from worker.ledger.times import instant
from worker.settings import Settings

OTHERS = BETA.replace('tenant_id = "beta.org"', 'tenant_id = "beta.org"\nguard = "none"')


@pytest.fixture
def ledger(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline_at(tmp_path, rhythm, more=OTHERS + USERS) as built:
        rhythm.seed(ORG, [registration()])
        yield built


@pytest.fixture
def ann(ledger: Pipeline) -> Iterator[Browser]:
    with console(ledger.services) as url, signed_in(url) as browser:
        yield browser


def all_run(ledger: Pipeline) -> None:
    """Every kind of process gives its sign of life, and a sweep was just now."""
    for kind in ("web", "worker", "sweeper", "beat"):
        process = Process(kind, f"{kind}@here", ledger.services.tenants.digest)
        ledger.ledger.scripts("seen", *Presence(process).arguments())
    ledger.ledger.sweep(TENANT, timedelta(0), 10)


def test_when_all_is_well_the_first_line_says_so(ledger: Pipeline, ann: Browser) -> None:
    all_run(ledger)
    ledger.run(certiverse())
    page = ann.get("/")
    assert "Overview All is well. Nothing waits" in page.text
    assert "workers 1 · receivers 1 · sweeper alive · beat alive" in page.text
    assert "received 1 · synced 1, events an hour, last 24 hours" in page.text.replace("  ", " ")


def test_what_is_wrong_is_said_in_words_first(ledger: Pipeline, ann: Browser) -> None:
    all_run(ledger)
    ledger.run(certiverse(exam="NEW"), b"not JSON")
    ledger.services.gate(TENANT).close(Reason.RHYTHM_THROTTLED, timedelta(minutes=28))
    waiting = ledger.deliver(certiverse("dlv-2"))
    assert "Next try as soon as a worker is free" in ann.get(f"/events/{TENANT}/{waiting}").text
    page = ann.get("/")
    said = re.findall(r"<li>(.*?)</li>", page.html)
    assert said[0] == "1 result waits for a decision."
    assert said[1] == "1 result waits for something to be put right."
    assert re.fullmatch(
        r"Rhythm of acme has been throttling since \d\d:\d\d UTC; 1 result waits, the next call is allowed at "
        r"\d\d:\d\d UTC\.",
        said[2],
    )
    assert "Exam not in the exam map" in page.text
    assert "All is well" not in page.text


def test_missing_processes_are_named(ledger: Pipeline, ann: Browser) -> None:
    text = ann.get("/").text
    assert "No worker is running" in text
    assert "No receiver is running" in text


def test_the_hours_are_counted_where_they_happen(ledger: Pipeline, client: "redis.Redis") -> None:
    ledger.rhythm.seed(ORG, [registration(f"reg-{n}") for n in range(3)])
    ledger.run(*(certiverse(f"dlv-{n}", f"reg-{n}") for n in range(3)), b"not JSON")
    now = queries.redis_now(client)
    day = hours.last_day(client, TENANT, now)
    assert (len(day), day[-1].received, day[-1].synced) == (24, 4, 3)
    assert sum(hour.received + hour.synced for hour in day[:-1]) == 0
    assert day[-1].began <= now < day[-1].began + timedelta(hours=1)
    (key,) = client.keys("er:acme:synced:*")
    assert 86_400 < client.ttl(key) <= 172_800
    tomorrow = hours.last_day(client, TENANT, now + timedelta(hours=23))
    assert (tomorrow[0].received, tomorrow[0].synced) == (4, 3)
    assert sum(hour.received for hour in hours.last_day(client, TENANT, now + timedelta(hours=24))) == 0


@pytest.mark.parametrize(("most", "top"), [(0, 1), (1, 1), (3, 5), (10, 10), (11, 20), (99, 100), (1234, 2000)])
def test_the_picture_has_a_zero_and_a_round_top(most: int, top: int) -> None:
    now = instant(10**12)
    picture = draw([hours.Hour(now, most, 0), hours.Hour(now, 1 if most else 0, 0)])
    assert picture.top == top
    assert 0 <= picture.bars[0].received_height <= 64
    assert (picture.bars[1].received_height >= 1) == bool(most)


def test_a_redis_that_is_away_starts_or_is_full_is_told_as_it_is(rhythm: Sandbox, tmp_path: Path) -> None:
    server = Valkey().start()
    try:
        with pipeline_at(tmp_path, rhythm, more=BETA + USERS) as built:
            config = built.services.settings.config
        settings = Settings(config=config, REDIS_URL=server.url)  # type: ignore[call-arg]
        at = build(settings, patient=False)
        with console(at) as url, signed_in(url) as ann:
            at.redis.config_set("maxmemory", 1)
            full = ann.get("/")
            assert "The receiver answers 503" in full.text
            at.redis.config_set("maxmemory", 0)
            server.stop()
            began = monotonic()
            away = ann.get("/")
            assert monotonic() - began < 10
            assert (away.status, away.heading) == (503, "Redis cannot be reached")
            assert "What was accepted is safe" in away.text
            assert "the receiver" in away.text
            assert "503" in away.text
            assert "acme" not in away.html
            server.start()
            wait_until(lambda: ann.get("/").status == 200, 10, "the page")
        at.close()
    finally:
        server.close()


def test_the_configuration_is_shown_without_its_secrets(ledger: Pipeline, ann: Browser) -> None:
    page = ann.get("/configuration")
    for shown in ("exam-1", "CERT-1, CERT-1B", "calls_per_second"[:5], "sue", "acme.org"):
        assert shown in page.text
    for hidden in ("sandbox-key", "s3cret", "r3ad", "$argon2", "beta", ">bea<"):
        assert hidden not in page.html
    ledger.services.redis.zadd("er:beta:due:process", {"evt_x": 1000})
    tried = ann.send(page, "/configuration/checks")
    assert "beta" not in tried.html
    assert "has registrations" in tried.text
    assert "the guard holds" in tried.text
