"""One event: where it stands, its time line, the other results of its sitting, and what can be done.

What is personal is shown when it is asked for, by POST: each look is noted in the history first.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Final

from starlette.responses import Response

from schemas.event import Event, EventState
from tasks.operator import contents
from tasks.operator.plan import plan_event
from tasks.operator.results import result_of
from tasks.operator.steering import needed, next_try
from worker.console.visit import Refusal, Visit
from worker.ledger import trace

#: What can be looked at, and how. Each notes the look.
_LOOKS: Final[dict[str, Callable[[Visit, Event], Any]]] = {
    "result": lambda visit, event: result_of(visit.at, event, visit.by),
    "payload": lambda visit, event: contents.payload(visit.at, event.tenant, event.id, visit.by),
    "plan": lambda visit, event: plan_event(visit.at, event.tenant, event.id, visit.by),
    "written": lambda visit, event: contents.written(visit.at, event.tenant, event.id, visit.by),
    "words": lambda visit, event: contents.words(visit.at, event.tenant, event.id, visit.by),
}


def show(visit: Visit) -> Response:
    """`GET /events/{tenant}/{id}`."""
    return _page(visit, visit.event(), None, None)


def look(visit: Visit) -> Response:
    """`POST /events/{tenant}/{id}/look`: the page, with what was asked for."""
    event, what = visit.event(), visit.form.get("what")
    if what not in _LOOKS:
        raise Refusal(400, "Not understood", "There is no such thing to look at.")
    if what == "plan" and event.tenant not in visit.at.tenants.tenants:
        raise Refusal(
            409, "Not now", f"Tenant {event.tenant} is not in the tenants file, so its Rhythm cannot be asked."
        )
    found = _LOOKS[what](visit, event)
    return _page(visit, visit.event(), what, found)  # with the look in its history


def _page(visit: Visit, event: Event, what: str | None, found: Any) -> Response:
    others = trace.events(visit.at.redis, event.tenant, trace.of_delivery(visit.at.redis, event.tenant, event))
    movable = event.state.for_a_person or event.state.waiting
    return visit.page(
        "event.html",
        f"Event {event.id}",
        event=event,
        siblings=[other for other in others if other.id != event.id],
        what=what,
        found=found,
        needs=needed(event) or ("registration" if may_name(event) else None),
        mark=mark(event),
        next_try=next_try(visit.at, event),
        movable=movable and visit.may_act,
        moves=event.history,
    )


def may_name(event: Event) -> bool:
    """Whether naming the registration helps, although the event does not ask for it: none was found so far."""
    return event.reason == "registration_not_found" and event.state in (EventState.READY, EventState.DEAD)


def mark(event: Event) -> str:
    """Where an event stands, in short: a form carries it, and acts only on an event that still stands there."""
    standing = (event.state, event.reason, event.detail, event.registration, event.attempts)
    return hashlib.sha256(repr(standing).encode()).hexdigest()[:10]
