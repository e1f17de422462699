"""Acts in the console: each reason's own form, the preview, what was overtaken, and what stands in the history."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox
from schemas.event import Event, EventState, Reason
from tests.console_peer import BETA, USERS, Browser, Page, console, signed_in
from tests.events import certiverse, registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from worker.ledger import strays
from worker.ledger.audit.books import books


@pytest.fixture
def ledger(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> Iterator[Pipeline]:
    """A ledger that agrees with itself at the end."""
    with pipeline_at(tmp_path, rhythm, more=BETA + USERS) as built:
        rhythm.seed(ORG, [registration("reg-a"), registration("reg-b")])
        yield built
    assert books(client, TENANT).differences == ()


@pytest.fixture
def ann(ledger: Pipeline) -> Iterator[Browser]:
    with console(ledger.services) as url, signed_in(url) as browser:
        yield browser


def path(event: Event) -> str:
    return f"/events/{event.tenant}/{event.id}"


def acts(event: Event) -> list[tuple[str, str, str | None]]:
    return [(line.move, line.by, line.reason) for line in event.history if line.by.startswith("operator:")]


def preview(browser: Browser, event: Event, move: str = "replay", **filled: object) -> Page:
    return browser.send(browser.get(path(event)), "/preview", {"move": move}, **filled)


def test_the_registration_is_chosen_among_those_that_fit_and_written(ledger: Pipeline, ann: Browser) -> None:
    (event,) = ledger.run(certiverse(registration=None))
    assert event.reason is Reason.REGISTRATION_AMBIGUOUS
    chosen = ann.send(ann.get(path(event)), f"{path(event)}/look", {"what": "plan"})
    shown = ann.send(chosen, "/preview", {"move": "replay"}, registration="reg-b", why="they told us")
    assert shown.heading == "Send 1 result on?"
    assert "Registration reg-b is registered, for exam exam-1." in shown.text
    assert "status registered → passed" in shown.text
    assert "score – → 82.5" in shown.text
    assert ledger.event(event.id).state is EventState.HELD
    done = ann.send(shown, "/act")
    assert (done.status, done.heading) == (200, "1 result was sent on")
    ledger.sync()
    settled = ledger.event(event.id)
    assert (settled.state, settled.registration) == (EventState.SYNCED, "reg-b")
    assert ("replay", "operator:ann", "they told us") in acts(settled)
    assert ledger.registration("reg-b")["status"] == "passed"
    assert ledger.registration("reg-a")["status"] == "registered"


def test_a_registration_that_cannot_be_it_is_refused_in_the_preview(ledger: Pipeline, ann: Browser) -> None:
    ledger.rhythm.seed(ORG, [registration("reg-2", exam_id="exam-2")])
    (event,) = ledger.run(certiverse(registration=None))
    for named, told in (("reg-2", "is for exam exam-2"), ("reg-nowhere", "Rhythm has no registration reg-nowhere")):
        answer = preview(ann, event, named=named)
        assert (answer.status, told in answer.text, "Nothing was done" in answer.text) == (400, True, True)
    without = preview(ann, event)
    assert (without.status, "Choose the registration first." in without.text) == (400, True)
    assert ledger.event(event.id).state is EventState.HELD


@pytest.mark.parametrize(("verdict", "becomes"), [("passed", "passed"), ("failed", "failed"), ("none", "registered")])
def test_a_verdict_is_given(ledger: Pipeline, ann: Browser, verdict: str, becomes: str) -> None:
    (event,) = ledger.run(certiverse(registration="reg-a", passed=None))
    assert event.reason is Reason.RESULT_UNSCORED
    shown = preview(ann, event, verdict=verdict)
    assert f"with the verdict “{verdict}”" in shown.text
    assert ann.send(shown, "/act").status == 200
    ledger.sync()
    assert ledger.registration("reg-a")["status"] == becomes


def test_what_can_be_accepted_is_accepted_by_one_button(ledger: Pipeline, ann: Browser) -> None:
    (event,) = ledger.run(certiverse(registration="reg-a", termination="proctor"))
    assert event.reason is Reason.INTEGRITY_REVIEW
    assert "Accept and send on" in ann.get(path(event)).text
    shown = preview(ann, event)
    assert "in spite of the reason" in shown.text
    ann.send(shown, "/act")
    ledger.sync()
    assert ledger.event(event.id).result == "written"


def test_setting_aside_wants_a_reason_and_keeps_it(ledger: Pipeline, ann: Browser) -> None:
    (event,) = ledger.run(b"not JSON")
    assert event.state is EventState.DEAD
    assert preview(ann, event, "discard", why="  ").status == 400
    shown = preview(ann, event, "discard", why="the platform was told")
    assert shown.heading == "Set 1 result aside for good?"
    ann.send(shown, "/act")
    aside = ledger.event(event.id)
    assert aside.state is EventState.DISCARDED
    assert acts(aside) == [("discard", "operator:ann", "the platform was told")]
    assert "the platform was told" in ann.get(path(event)).text


def test_an_act_that_was_overtaken_says_so_and_changes_nothing(ledger: Pipeline, ann: Browser) -> None:
    (event,) = ledger.run(certiverse(registration="reg-a", termination="proctor"))
    form = ann.get(path(event))
    shown = preview(ann, event)
    aside = preview(ann, event, "discard", why="a test")
    assert ann.send(shown, "/act").status == 200
    ledger.sync()
    before = ledger.event(event.id)
    assert before.state is EventState.SYNCED
    for again in (ann.send(shown, "/act"), ann.send(aside, "/act")):
        assert (again.status, again.heading) == (409, "Nothing was changed")
        assert f"{event.id} has moved meanwhile: it is synced (written) now. It was left as it is." in again.text
    late = ann.send(form, "/preview", {"move": "discard"}, why="too late")
    assert (late.status, "it is synced (written) now" in late.text) == (409, True)
    assert ledger.event(event.id) == before


def test_what_was_meant_for_another_question_is_not_done(ledger: Pipeline, ann: Browser) -> None:
    """It was sent on by another person meanwhile and stopped again, for another reason."""
    (event,) = ledger.run(certiverse(registration="reg-a", termination="proctor"))
    shown = preview(ann, event)
    aside = preview(ann, event, "discard", why="the review says no")
    ledger.rhythm.seed(ORG, [registration("reg-a", status="failed", score=12)])
    ledger.ledger.replay(TENANT, event.id, "operator:bob", {"accept": ["integrity_review"]})
    ledger.sync()
    assert ledger.event(event.id).reason is Reason.REGISTRATION_SETTLED
    for late in (shown, aside):
        told = ann.send(late, "/act")
        assert (told.status, "it is held (registration_settled) now. It was left as it is" in told.text) == (409, True)
    assert ledger.event(event.id).reason is Reason.REGISTRATION_SETTLED


def test_a_worker_that_has_an_event_keeps_it(ledger: Pipeline, ann: Browser) -> None:
    event = ledger.event(ledger.deliver(certiverse(registration="reg-a")))
    shown = preview(ann, event, "discard", why="a test")
    ledger.ledger.claim(TENANT, "token", 1, 0)
    done = ann.send(shown, "/act")
    assert (done.status, "a worker is at it: try again in" in done.text) == (409, True)
    assert ledger.event(event.id).state is EventState.RECEIVED


def group(ledger: Pipeline, count: int) -> list[Event]:
    return ledger.run(*(certiverse(f"dlv-{n}", exam="NEW") for n in range(count)), certiverse("other", exam="OTHER"))


def test_what_waits_is_grouped_by_cause_and_one_click_takes_a_group(ledger: Pipeline, ann: Browser) -> None:
    events = group(ledger, 5)
    first = ann.get("/decide")
    assert first.heading == "6 results wait for a person"
    links = [part.partition('"')[0] for part in first.html.split('href="/decide/')[1:]]
    assert len(links) == 2
    page = ann.get(f"/decide/{links[0]}")
    assert "NEW" in page.text
    assert "OTHER" not in page.text
    shown = ann.send(page, "/preview", all="1", move="replay")
    assert shown.heading == "Send 5 results on?"
    assert "The first and the last of them" in shown.text
    assert [shown.html.count(event.id) for event in events[:5]] == [2, 1, 1, 1, 2]
    assert {event.state for event in map(ledger.event, [one.id for one in events])} == {EventState.HELD}
    done = ann.send(shown, "/act")
    assert done.heading == "5 results were sent on"
    states = [ledger.event(event.id).state for event in events]
    assert states == [EventState.RECEIVED] * 5 + [EventState.HELD]


def test_some_of_a_group_are_chosen_and_those_that_moved_are_left(ledger: Pipeline, ann: Browser) -> None:
    events = group(ledger, 4)
    link = ann.get("/decide").html.partition('href="/decide/')[2].partition('"')[0]
    page = ann.get(f"/decide/{link}")
    marked = [part.partition('"')[0] for part in page.html.split('name="event" value="')[1:]]
    assert len(marked) == 4
    shown = ann.send(page, "/preview", event=marked[1:], move="discard", why="a test")
    assert shown.heading == "Set 3 results aside for good?"
    moved = marked[2].partition(".")[0]
    ledger.ledger.replay(TENANT, moved, "operator:bob", {})
    done = ann.send(shown, "/act")
    assert done.heading == "2 results were set aside"
    assert f"{moved} has moved meanwhile: it is received now" in done.text
    left = [event.id for event in map(ledger.event, [one.id for one in events]) if event.state is EventState.HELD]
    assert left == [marked[0].partition(".")[0], events[-1].id]
    assert ann.send(page, "/preview", move="replay").status == 400


def test_a_stray_is_looked_at_recorded_and_removed(ledger: Pipeline, client: "redis.Redis") -> None:
    sealer = ledger.ledger.sealer
    body = certiverse("dlv-9", "reg-a").decode()
    id = strays.keep(
        client, sealer, "no such tenant", "task-1", f'[["nobody", "certiverse", {body!r}], {{}}, {{}}]'.encode()
    )
    other = strays.keep(client, sealer, "no body", "task-2", b'[["acme"], {}, {}]')
    with console(ledger.services) as url, signed_in(url, "max") as max_, signed_in(url, "ann") as ann:
        assert ann.get("/strays").status == 403
        page = max_.get("/strays")
        assert page.heading == "2 messages could not be recorded"
        held = max_.send(page, "/strays/look", {"id": other})
        assert '[["acme"], {}, {}]' in held.text
        shown = max_.send(held, "/strays/act", {"move": "discard"}, why="a test of ours")
        assert shown.heading == "Remove 1 entry for good?"
        assert len(client.hkeys("er:strays")) == 2
        assert "1 removed." in max_.send(shown, "/strays/act").text
        assert [key.decode() for key in client.hkeys("er:strays")] == [id]
    told = strays.acts(client)
    assert [f"operator:max look {other}" in told[1], f"operator:max discard {other} a test of ours" in told[0]] == [
        True
    ] * 2


def test_the_second_tenant_s_events_are_not_acted_on_by_the_first_s_people(ledger: Pipeline, ann: Browser) -> None:
    (event,) = ledger.run(b"not JSON")
    page = ann.get(path(event))
    form = dict(page.form("/preview", move="discard")["members"])
    for change in ({"tenant": "beta"}, {"tenant": ""}, {"move": "forget"}, {"move": ""}):
        assert ann.post("/preview", form | {"why": "x"} | change).status in (400, 404)
        assert ann.post("/act", form | {"why": "x"} | change).status in (400, 404)
    assert ledger.event(event.id) == event
