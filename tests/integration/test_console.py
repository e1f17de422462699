"""The console's pages: who gets in, what they see, and what never leaves the ledger."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from structlog.testing import capture_logs
from typer.testing import CliRunner

from sandbox.control import Sandbox
from schemas.event import Event, Reason
from tests.commands import command, started
from tests.console_peer import BETA, HASH, PASSWORD, USERS, Browser, Page, console, signed_in
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from tests.running import free_port, wait_until
from worker.cli.app import app
from worker.console.app import ROUTES
from worker.console.signing_in import HASHER, form_token
from worker.ledger import sessions

EVERY_PAGE = ("/", "/decide", "/events", "/configuration")
#: Of a candidate and of what is said about them: in no URL, title or log.
PERSONAL = ("ada@example.org", "stu-1", "Lovelace", "82.5")


@pytest.fixture
def two(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> Iterator[Pipeline]:
    """A ledger of two tenants, and users of each."""
    with pipeline_at(tmp_path, rhythm, more=BETA + USERS) as built:
        rhythm.seed(ORG, [registration("reg-a"), registration("reg-b"), registration("reg-c", score=70)])
        yield built


@pytest.fixture
def url(two: Pipeline) -> Iterator[str]:
    with console(two.services) as address:
        yield address


@pytest.fixture
def ann(url: str) -> Iterator[Browser]:
    with signed_in(url) as browser:
        yield browser


@pytest.fixture
def everyone(url: str) -> Iterator[dict[str, Browser]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(signed_in(url, name)) for name in ("ann", "sue", "bea", "max")}


@pytest.fixture
def ambiguous(two: Pipeline) -> Event:
    (event,) = two.run(certiverse(registration=None))
    assert event.reason is Reason.REGISTRATION_AMBIGUOUS
    return event


def at(event: Event, more: str = "") -> str:
    return f"/events/{event.tenant}/{event.id}{more}"


def look(browser: Browser, event: Event, what: str) -> Page:
    return browser.send(browser.get(at(event)), at(event, "/look"), {"what": what})


def test_without_a_session_every_page_leads_to_the_sign_in(two: Pipeline, url: str, ambiguous: Event) -> None:
    with Browser(url) as stranger:
        for place in ROUTES:
            path = place.path.format(tenant=TENANT, id=ambiguous.id, state="held", reason="registration_ambiguous")
            answer = stranger.get(path) if place.method == "GET" else stranger.post(path, {"form_token": "x"})
            assert (answer.path, answer.status) == ("/sign-in", 200), path
            assert ambiguous.id not in answer.html


@pytest.mark.parametrize(
    ("name", "password"), [("ann", "wrong"), ("nobody", PASSWORD), ("ANN", PASSWORD), ("", ""), ("ann", "")]
)
def test_a_wrong_name_or_password_gets_one_answer(url: str, name: str, password: str) -> None:
    with Browser(url) as stranger:
        answer = stranger.sign_in(name, password)
        assert (answer.status, "That is not a name and its password." in answer.text) == (403, True)
        assert stranger.get("/").path == "/sign-in"


def test_passwords_are_not_tried_for_ever(two: Pipeline, url: str) -> None:
    with Browser(url) as stranger, capture_logs() as logs:
        tried = [stranger.sign_in("ann", "guess").status for _ in range(sessions.FAILURES_ALLOWED)]
        refused = stranger.sign_in("ann")
        assert (set(tried), refused.status) == ({403}, 429)
        assert "Try again in a quarter of an hour" in refused.text
        assert stranger.get("/").path == "/sign-in"
        assert stranger.sign_in("sue").path == "/"
    assert "guess" not in str(logs)
    (key,) = two.services.redis.keys("er:console.failed.*")
    assert 0 < two.services.redis.ttl(key) <= 900


def test_signing_out_ends_the_session_in_every_copy_of_its_cookie(ann: Browser, url: str) -> None:
    with Browser(url) as copy:
        copy.session.cookies.update(ann.session.cookies)
        assert copy.get("/").path == "/"
        assert ann.send(ann.get("/"), "/sign-out").path == "/sign-in"
        assert copy.get("/").path == "/sign-in"


def test_a_session_ends_by_itself_and_is_not_kept_in_the_clear(two: Pipeline, ann: Browser) -> None:
    (key,) = two.services.redis.keys("er:console.session.*")
    assert 0 < two.services.redis.ttl(key) <= 12 * 3600
    (token,) = (cookie.value for cookie in ann.session.cookies if cookie.name == "examrelay_session")
    assert token not in key.decode() + two.services.redis.get(key).decode()
    two.services.redis.delete(key)
    assert ann.get("/").path == "/sign-in"


@pytest.mark.parametrize(
    "change",
    [("users.ann", "users.anna"), (HASH, HASHER.hash("another"))],
    ids=["no user any more", "another password"],
)
def test_a_session_ends_when_its_user_is_another(
    two: Pipeline, ann: Browser, tmp_path: Path, change: tuple[str, str]
) -> None:
    (tmp_path / "later").mkdir()
    later = pipeline_at(tmp_path / "later", two.rhythm, more=BETA + USERS.replace(*change, 1))
    with later as built, console(built.services) as address, Browser(address) as same:
        same.session.cookies.update(ann.session.cookies)
        assert same.get("/").path == "/sign-in"
    assert ann.get("/").path == "/"


def test_one_who_was_told_signs_in_once(two: Pipeline, url: str) -> None:
    code = sessions.invite(two.services.redis, "root")
    with Browser(url) as first, Browser(url) as second:
        page = first.sign_in("root", code)
        assert (page.path, "may act" in page.html) == ("/", True)
        assert second.sign_in("root", code).status == 403
    other = sessions.invite(two.services.redis, "root")
    with Browser(url) as third:
        assert third.sign_in("ann", other).status == 403


def test_every_answer_has_the_headers(two: Pipeline, url: str, ann: Browser) -> None:
    with Browser(url) as stranger:
        found = [ann.get(path) for path in (*EVERY_PAGE, "/nowhere", "/static/console.css", "/healthz")]
        found += [
            stranger.get("/sign-in"),
            stranger.post("/sign-in", {"x": "y" * 300_000}),
            stranger.post("/nowhere", {}),
        ]
    for page in found:
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert ("no-store" in page.headers["Cache-Control"]) != ("/static/" in page.url)
        assert "server" not in {name.lower() for name in page.headers}
        assert " style=" not in page.html
        assert "<script>" not in page.html
        assert " onclick=" not in page.html
    assert [page.status for page in found[-3:]] == [200, 413, 404]


def test_the_cookie_is_for_this_site_and_no_script(url: str) -> None:
    with Browser(url) as browser:
        form = browser.get("/sign-in").form("/sign-in")
        members = {**dict(form["members"]), "name": "ann", "password": PASSWORD}
        answer = browser.session.post(url + "/sign-in", data=members, allow_redirects=False, timeout=30)
        cookies = answer.headers["set-cookie"].lower()
        assert cookies.count("httponly; path=/; samesite=strict") >= 1
        proxied = browser.session.post(
            url + "/sign-in",
            data=members | {"form_token": dict(browser.get("/sign-in").form("/sign-in")["members"])["form_token"]},
            headers={"X-Forwarded-Proto": "https"},
            allow_redirects=False,
            timeout=30,
        )
        assert "; secure" in proxied.headers["set-cookie"].lower()


def test_no_form_is_taken_without_its_token_or_from_another_site(two: Pipeline, ann: Browser, ambiguous: Event) -> None:
    page = ann.get(at(ambiguous))
    before = two.event(ambiguous.id)
    for place in ROUTES:
        if place.method == "POST":
            path = place.path.format(tenant=TENANT, id=ambiguous.id)
            members = {"words": "stu-1", "what": "payload", "tenant": TENANT, "move": "discard", "why": "x"}
            for token in ("", "0" * 64, "é", form_token("")):
                assert ann.post(path, members | {"form_token": token}).status == 403, path
            token = dict(page.forms[0]["members"])["form_token"]
            other = ann.post(path, members | {"form_token": token}, headers={"Sec-Fetch-Site": "cross-site"})
            assert other.status == 403, path
    assert ann.post("/sign-out", {}).status == 403
    with Browser(ann.url) as stranger:
        members = {"name": "ann", "password": PASSWORD, "form_token": form_token("")}
        assert (stranger.post("/sign-in", members).status, stranger.get("/").path) == (403, "/sign-in")
    assert two.event(ambiguous.id) == before
    assert ann.get("/").path == "/"


def everything(client: "redis.Redis") -> dict[bytes, object]:
    """What a tenant's keys hold, however Redis stores it."""
    read = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    return {key: read[client.type(key)](key) for key in client.keys("er:acme:*")}


def test_nothing_acts_on_get(two: Pipeline, ann: Browser, ambiguous: Event) -> None:
    before = everything(two.services.redis)
    for place in ROUTES:
        path = place.path.format(tenant=TENANT, id=ambiguous.id, state="held", reason="registration_ambiguous")
        answer = ann.get(f"{path}?move=discard&why=x&event={ambiguous.id}&what=payload&words=x&live=1")
        assert (answer.status in (404, 405)) == (place.method == "POST"), path
    assert everything(two.services.redis) == before


def test_other_tenants_are_not_there(two: Pipeline, everyone: dict[str, Browser], ambiguous: Event) -> None:
    bea = everyone["bea"]
    missing = bea.get("/events/acme/evt_nothing")
    for path in (
        at(ambiguous),
        "/events?tenant=acme",
        "/decide/acme/held/registration_ambiguous",
        "/events/gamma/evt_1",
    ):
        answer = bea.get(path)
        assert (answer.status, answer.text) == (404, missing.text), path
    for path in (*EVERY_PAGE, f"/events?id={ambiguous.id}"):
        page = bea.get(path)
        assert "acme" not in page.html, path
        assert f"/{ambiguous.id}" not in page.html, path
    assert bea.send(bea.get("/"), "/search", words="stu-1").heading == "Nothing found"
    assert bea.send(bea.get("/"), "/search", words=ambiguous.id).heading == "Nothing found"
    token = dict(bea.get("/").forms[0]["members"])["form_token"]
    members = {"form_token": token, "tenant": "acme", "move": "discard", "why": "x", "event": f"{ambiguous.id}.x"}
    assert [bea.post(path, members).status for path in ("/preview", "/act", at(ambiguous, "/look"))] == [404, 404, 404]
    assert bea.get("/strays").status == 403
    assert ambiguous.id in everyone["max"].get("/events").html
    assert everyone["max"].get("/strays").status == 200


def test_one_who_may_see_sees_and_cannot_act(two: Pipeline, everyone: dict[str, Browser], ambiguous: Event) -> None:
    sue = everyone["sue"]
    page = look(sue, ambiguous, "payload")
    assert "ada@example.org" in page.text
    assert "You may look, not act" in page.text
    assert {form["action"].partition("#")[0] for form in page.forms} == {"/search", "/sign-out", at(ambiguous, "/look")}
    token = dict(page.forms[0]["members"])["form_token"]
    members = {"form_token": token, "tenant": "acme", "move": "discard", "why": "x", "event": f"{ambiguous.id}.x"}
    refused = [sue.post(path, members) for path in ("/preview", "/act", "/strays/act")]
    assert [(one.status, "You may look, not act" in one.text) for one in refused] == [(403, True)] * 3
    assert two.event(ambiguous.id).reason is Reason.REGISTRATION_AMBIGUOUS


def test_each_look_at_personal_data_is_in_the_history_with_the_user_s_name(
    two: Pipeline, everyone: dict[str, Browser], ambiguous: Event
) -> None:
    everyone["ann"].get(at(ambiguous))
    for what in ("payload", "result", "plan", "written", "words"):
        assert look(everyone["sue"], ambiguous, what).status == 200
    told = [(line.move, line.by, line.reason) for line in two.event(ambiguous.id).history if line.move == "look"]
    assert ("look", "operator:sue", "payload") in told
    assert ("look", "operator:sue", "plan") in told
    assert ("look", "operator:sue", "trace") in told
    assert {by for _, by, _ in told} == {"operator:sue"}
    assert "operator:sue" in everyone["ann"].get(at(ambiguous)).text


def test_an_event_shows_nothing_personal_until_it_is_asked_for(two: Pipeline, ann: Browser, ambiguous: Event) -> None:
    page = ann.get(at(ambiguous))
    assert [word for word in PERSONAL if word in page.html] == []
    assert "Several registrations fit equally well" in page.text
    opened = look(ann, ambiguous, "payload")
    assert '"email": "ada@example.org"' in opened.text
    result = look(ann, ambiguous, "result")
    assert "82.5" in result.text
    assert "passed" in result.text
    plan = look(ann, ambiguous, "plan")
    assert [name in plan.text for name in ("reg-a", "reg-b", "registered 01 Apr 2026")] == [True] * 3


def test_what_was_looked_for_is_in_no_url_title_or_log(two: Pipeline, url: str, ambiguous: Event) -> None:
    two.run(certiverse("dlv-2", "reg-a", completed="2026-05-04T13:30:00Z"))
    visited: list[Page] = []
    with capture_logs() as logs, signed_in(url) as ann:
        for words in ("ada@example.org", "stu-1", "Ada@Example.org", "nobody@example.org"):
            visited.append(ann.send(ann.get("/"), "/search", words=words))
        visited += [look(ann, ambiguous, what) for what in ("payload", "result", "plan", "words", "written")]
        visited += [ann.get(path) for path in EVERY_PAGE]
    assert [page.heading for page in visited[:4]] == ["Events 2 by their ids"] * 3 + ["Nothing found"]
    for page in visited:
        assert [word for word in PERSONAL if word in page.url or word in page.title] == []
    assert [word for word in PERSONAL if word in str(logs)] == []


@pytest.mark.parametrize("words", ["evt", "reg-a", "dlv-2"])
def test_a_search_finds_by_event_registration_and_deliverable(two: Pipeline, ann: Browser, words: str) -> None:
    (event,) = two.run(certiverse("dlv-2", "reg-a"))
    found = ann.send(ann.get("/"), "/search", words=event.id if words == "evt" else words)
    assert found.path == at(event)


def test_the_list_filters_by_its_url_and_pages_by_a_cursor(two: Pipeline, ann: Browser) -> None:
    for number in range(120):
        two.deliver(certiverse(f"dlv-{number}", exam="NEW"))
    while two.services.redis.zcard("er:acme:due:process"):
        two.sync()
    seen: list[str] = []
    page = ann.get("/events?state=held&reason=unknown_exam&since=2020-01-01T00:00")
    for _ in range(3):
        seen += [id for id in dict.fromkeys(page.html.split("/events/acme/")) if id.startswith("evt_")]
        older = [part.partition('"')[0] for part in page.html.split('rel="next" href="')[1:]]
        if older:
            page = ann.get(older[0].replace("&amp;", "&"))
    ids = [part[:30] for part in seen]
    assert (len(ids), len(set(ids))) == (120, 120)
    assert "No event fits" in ann.get("/events?state=dead").text
    assert ann.get("/events?state=asleep").status == 400
    assert ann.get("/events?reason=asleep").status == 400
    assert ann.get("/events?after=x").status == 400
    assert ann.get("/events?live=1").headers["Refresh"] == "5"


def test_a_list_shows_the_initials_and_no_more(two: Pipeline, ann: Browser) -> None:
    body = json.loads(certiverse("dlv-2", "reg-a"))
    body["candidate"] |= {"firstName": "Ada", "lastName": "Lovelace"}
    two.run(json.dumps(body).encode())
    page = ann.get("/events")
    assert "A. L. CERT-1" in page.text
    assert [word for word in PERSONAL if word in page.html] == []


def test_hidden_and_turning_characters_are_shown_as_numbers(two: Pipeline, ann: Browser) -> None:
    body = json.loads(certiverse("dlv-2", "reg-a", exam="=cmd"))
    body["candidate"] |= {"firstName": "A\u202eda\u200b", "lastName": "<script>alert(1)</script>"}
    (event,) = two.run(json.dumps(body, ensure_ascii=False).encode())
    page = look(ann, event, "payload")
    assert "\u202e" not in page.html
    assert "\u200b" not in page.html
    assert "<script>alert" not in page.html
    assert "Lovelace" not in page.html
    assert "&lt;script&gt;alert(1)" in page.html
    assert '<td class="whole">&#39;=cmd</td>' in ann.get("/events").html, "what is copied from here is not calculated"


def test_the_command_makes_a_hash() -> None:
    shown = CliRunner().invoke(app, ["console", "--hash"], input="s3cond horse\ns3cond horse\n").output
    (made,) = re.findall(r"\$argon2id\$\S+", shown)
    assert HASHER.verify(made, "s3cond horse")
    assert "s3cond" not in shown


def test_the_command_serves_until_it_is_ended_and_refuses_a_taken_port(two: Pipeline) -> None:
    config, port = two.services.settings.config, free_port()
    with started(config, "console", EXAMRELAY_CONSOLE_PORT=str(port)) as serving:
        with Browser(f"http://127.0.0.1:{port}") as browser:
            wait_until(lambda: browser.get("/healthz").status == 200, 60, "the console")
            assert browser.sign_in("ann").path == "/"
            second = command(config, "console", EXAMRELAY_CONSOLE_PORT=str(port))
        assert (second.returncode, second.stderr.count("\n")) == (2, 1)
        assert f"127.0.0.1:{port} cannot be had" in second.stderr
        serving.terminate()
        assert serving.wait(20) in (0, -signal.SIGTERM)
