"""Lists of events: by filter, whose form is the URL, page by page; and what a search found."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
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

_SIZE: Final = 50
#: A search that finds more shows the newest.
_FOUND: Final = 100
#: How often a page that was asked to stay current asks for itself again.
_LIVE_SECONDS: Final = 5
_FILTERS: Final = ("tenant", "source", "state", "reason", "since", "until")
#: Members of a payload that hold a person's first and last name, in small letters without signs between.
_FIRST, _LAST = {"firstname", "givenname"}, {"lastname", "familyname", "surname"}
_DEEP: Final = 3


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


def page(visit: Visit, filters: Filters, size: int = _SIZE) -> tuple[list[Event], str]:
    """A page of the visitor's tenants' events, newest first, and the cursor for the next one."""
    tenants = [visit.tenant(filters.tenant)] if filters.tenant else visit.user.tenants
    after = visit.query.get("after")
    pages = [replace(filters, tenant=name).page(visit.at, size=size, after=after) for name in tenants]
    merged = merge(*(one.events for one in pages), key=queries.place, reverse=True)
    events = list(islice(merged, size))
    more = any(one.after for one in pages) or sum(len(one.events) for one in pages) > size
    return events, f"{queries.stamp(events[-1].received_at)}.{events[-1].id}" if more and events else ""


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
