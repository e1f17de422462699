"""Lists of events: by filter, whose form is the URL, page by page; and what a search found."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import dropwhile, islice
from typing import Any, Final, NamedTuple

from starlette.responses import Response

from schemas.event import Event, EventState
from schemas.outcome import Source
from tasks import process
from tasks.operator.listing import Filters
from tasks.operator.listing import search as search_events
from worker.bootstrap import Services
from worker.console.visit import Form, Refusal, Visit, go_to
from worker.errors import PermanentError
from worker.ledger import queries
from worker.ledger.sealed import SealBroken, SealUnknown
from worker.ledger.times import cursor, place_at

_SIZE: Final = 50
#: How many events are looked at for one page at most: more would make it slow.
_LOOKED_AT: Final = 50_000
#: A search that finds more shows the newest.
_FOUND: Final = 100
#: How often a page that was asked to stay current asks for itself again.
_LIVE_SECONDS: Final = 5
_FILTERS: Final = ("tenant", "source", "state", "reason", "since", "until")
#: Members of a payload that hold a person's first and last name, in small letters without signs between.
_FIRST, _LAST = {"firstname", "givenname"}, {"lastname", "familyname", "surname"}
_DEEP: Final = 3


class Page(NamedTuple):
    """Some events, newest first, and the cursor from which their listing goes on ("" at its end)."""

    events: list[Event]
    after: str


class Line(NamedTuple):
    """An event in a list. Of the person only the initials."""

    event: Event
    initials: str
    exam: str


def show(visit: Visit) -> Response:
    """`GET /events`."""
    given = {name: visit.query.get(name) for name in _FILTERS}
    events, after = page(visit, filters_of(visit.query))
    live = visit.query.get("live") == "1"
    query = [(name, value) for name, value in visit.query.members if name != "after" and value]
    answer = visit.page(
        "events.html",
        "Events",
        lines=lines(visit.at, events),
        given=given,
        ids=visit.query.every("id"),
        query=query,
        after=after,
        looked_to=place_at(after)[0] if after else None,
        live=live,
        filtered=bool(query),
    )
    if live:
        answer.headers["Refresh"] = str(_LIVE_SECONDS)
    return answer


def search(visit: Visit) -> Response:
    """`POST /search`: so what was looked for is in no URL. Leads to the event, or to a list by the events' ids."""
    words = visit.form.get("words")
    if not words:
        raise Refusal(400, "Nothing to look for", "Type an event's id, a candidate's id or e-mail address, or another.")
    known = [tenant for tenant in visit.user.tenants if tenant in {*queries.tenants(visit.at.redis)}]
    found = search_events(visit.at, known, words)
    if not found:
        return visit.page("nothing.html", "Nothing found", 404)
    if len(found) == 1:
        return go_to(f"/events/{found[0].tenant}/{found[0].id}")
    return go_to("/events", id=[event.id for event in found[-_FOUND:]])


def filters_of(query: Form) -> Filters:
    """The filters that a URL or a form names. Raises Refusal, ConfigurationError."""
    try:
        return Filters(
            tenant=query.get("tenant") or None,
            source=Source(query.get("source")) if query.get("source") else None,
            state=EventState(query.get("state")) if query.get("state") else None,
            reason=query.get("reason") or None,
            since=_time(query.get("since")),
            until=_time(query.get("until")),
            ids=tuple(query.every("id")),
        )
    except ValueError:
        raise Refusal(
            400, "Not understood", "The address names a source, a state or a time that there is not."
        ) from None


def _time(text: str) -> datetime | None:
    """As the browser's field gives it: UTC, unless it says otherwise."""
    if not text:
        return None
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def page(visit: Visit, filters: Filters, size: int = _SIZE) -> Page:
    """A page of the visitor's tenants' events."""
    tenants = [visit.tenant(filters.tenant)] if filters.tenant else visit.user.tenants
    return paged(visit.at, filters, tenants, size, visit.query.get("after"))


def paged(
    at: Services, filters: Filters, tenants: Sequence[str], size: int, after: str = "", looked_at: int = _LOOKED_AT
) -> Page:
    """The newest `size` events of these tenants, or those that follow a cursor. Raises ConfigurationError.

    Looks at `looked_at` events in all: where few of many match, the page has fewer, and a cursor to go on.
    """
    place = place_at(after) if after else None
    upto = place and place[0] + timedelta(milliseconds=bool(place[1]))
    asked = replace(filters, until=min(filter(None, (upto, filters.until)), default=None))
    each = looked_at // max(1, len(tenants))
    reaches = () if asked.ids else (queries.reach(at.redis, name, asked.wanted(), each) for name in tenants)
    since = max(filter(None, (*reaches, asked.since)), default=None)
    listings = (replace(asked, tenant=name, since=since).find(at) for name in tenants)
    found = merge(*listings, key=queries.place, reverse=True)
    events = list(islice(dropwhile(lambda one: place and queries.place(one) >= place, found), size + 1))
    if len(events) > size:
        return Page(events[:size], cursor(*queries.place(events[size - 1])))
    return Page(events, cursor(since) if since and since != asked.since else "")


def lines(at: Services, events: list[Event]) -> list[Line]:
    """Events with what their payloads say, as far as these are kept and can be read."""
    return [Line(event, *_glimpse(at, event)) for event in events]


def _glimpse(at: Services, event: Event) -> tuple[str, str]:
    """The candidate's initials, and the code of the exam."""
    initials = exam = ""
    with suppress(SealUnknown, SealBroken, PermanentError, ValueError):
        work = at.ledger.look(event.tenant, event.id)
        if work and work.sealed:
            initials = initials_in(json.loads(at.ledger.sealer.open(work.sealed, event.id)))
            outcome = process.outcome_of(work, at.ledger.sealer)
            exam = outcome.exam_codes[0] if outcome else ""
    return initials, exam


def initials_in(payload: Any) -> str:
    """`M. O.` of the first names found; or of the first member `name` of a person."""
    found = dict(reversed(list(_names(payload, 0))))  # of several the first
    return " ".join(f"{found[kind][0].upper()}." for kind in ("first", "last", "name") if kind in found)[:5]


def _names(value: Any, depth: int, inside: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and depth < _DEEP:
        for key, member in value.items():
            plain = "".join(filter(str.isalpha, str(key))).lower()
            if isinstance(member, str) and member.strip():
                kind = "first" if plain in _FIRST else "last" if plain in _LAST else ""
                kind = kind or ("name" if plain == "name" and inside in ("user", "candidate") else "")
                if kind:
                    yield kind, member.strip()
            yield from _names(member, depth + 1, plain)
