"""What waits for a person, grouped by reason and cause; the preview of an act; the act.

An act is two forms: the first says what is meant, the preview shows what that will do and to how many, and carries the
events with where they stood. What has moved meanwhile is told and left alone.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal

from starlette.responses import Response

from schemas.event import Event, EventState, Reason
from schemas.outcome import VerdictAnswer
from tasks.operator.listing import Filters, cause, causes, find_event
from tasks.operator.plan import Plan, plan_event
from tasks.operator.steering import Selection, answers_of, needed, select
from tasks.operator.steering import act as move_them
from worker.console.listings import lines, page
from worker.console.one_event import mark
from worker.console.visit import Form, Refusal, Visit
from worker.ledger import queries
from worker.ledger.times import cursor

#: How many events are looked at to find the causes: more would make the page slow.
_LOOKED_AT: Final = 500
#: One act moves at most so many; the command has no such limit.
MOST: Final = 1_000
_SHOWN: Final = 50
_NOT_DONE: Final = "Nothing was done."
_MOVES: Final[dict[str, Literal["replay", "discard"]]] = {"replay": "replay", "discard": "discard"}


@dataclass(frozen=True)
class Group:
    """Events of one tenant that stopped for one cause."""

    tenant: str
    state: EventState
    reason: str
    cause: str
    count: int

    @property
    def handle(self) -> str:
        """Its cause, as the URL has it."""
        return handle(self.cause)


def handle(text: str) -> str:
    """A cause in short."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def show(visit: Visit) -> Response:
    """`GET /decide`."""
    groups, further = list[Group](), list[Group]()
    for tenant in visit.user.tenants:
        counts = queries.counts(visit.at.redis, tenant)
        for state in (EventState.HELD, EventState.DEAD):
            if not counts.get(state):
                continue
            found = list(islice(Filters(tenant=tenant, state=state).find(visit.at), _LOOKED_AT))
            groups += [Group(tenant, state, *one) for one in causes(found)]
            further += _further(tenant, state, counts, found)
    groups.sort(key=lambda group: -group.count)
    return visit.page("decide.html", "Decide", groups=groups, further=further, looked_at=_LOOKED_AT)


def _further(tenant: str, state: EventState, counts: dict[str, int], found: list[Event]) -> Iterator[Group]:
    """How many there are of each reason beyond those that were looked at."""
    if len(found) < _LOOKED_AT:
        return
    for name, count in counts.items():
        of, colon, reason = name.partition(":")
        seen = sum(str(event.reason) == reason for event in found)
        if colon and of == state and count > seen:
            yield Group(tenant, state, reason, "", count - seen)


def group(visit: Visit) -> Response:
    """`GET /decide/{tenant}/{state}/{reason}?cause=…`: its events, and the form that its reason wants."""
    filters, wanted = _named(visit, visit.request.path_params), visit.query.get("cause")
    events, after = page(visit, filters, _LOOKED_AT if wanted else _SHOWN)
    fitting = [event for event in events if not wanted or handle(cause(event)) == wanted]
    found, more = fitting[:_SHOWN], len(fitting) > _SHOWN
    if more:
        after = cursor(*queries.place(found[-1]))
    reason = Reason(filters.reason or "")
    return visit.page(
        "group.html",
        "Decide",
        filters=filters,
        reason=reason,
        cause=cause(found[0]) if found and wanted else "",
        wanted=wanted,
        count=len(fitting),
        more=more or bool(after),
        after=after,
        lines=lines(visit.at, found),
        mark=mark,
        most=MOST,
    )


def _named(visit: Visit, names: dict[str, str]) -> Filters:
    tenant, state, reason = visit.tenant(names["tenant"]), names["state"], names["reason"]
    if state not in (EventState.HELD, EventState.DEAD) or reason not in set(Reason):
        raise Refusal(404, "Not found", "There is no such group. The page `Decide` has all that there are.")
    return Filters(tenant=tenant, state=EventState(state), reason=reason)


def preview(visit: Visit) -> Response:
    """`POST /preview`: what an act would do, and to how many. Moves nothing."""
    move, answers, why = _asked(visit.form)
    tenant = visit.tenant(visit.form.get("tenant"))
    chosen, overtaken = _meant(visit, tenant)
    if not chosen:
        what = " ".join(overtaken) or "Choose at least one event, then try again."
        raise Refusal(409 if overtaken else 400, "Nothing to do", f"Nothing was done. {what}")
    lacking = {one for one in map(needed, chosen) if one and one not in answers}
    if move == "replay" and lacking:
        raise Refusal(400, "An answer is missing", f"Choose the {' and the '.join(lacking)} first. {_NOT_DONE}")
    selection = _select(visit, tenant, chosen, move, answers)
    moved = [event for event in chosen if event.id in {one.id for one in selection.chosen}]
    return visit.page(
        "preview.html",
        "Preview",
        move=move,
        answers=answers,
        why=why,
        tenant=tenant,
        lines=lines(visit.at, [moved[0], moved[-1]] if len(moved) > 1 else moved),
        marked=[(event.id, mark(event)) for event in moved],
        unmoved=[*overtaken, *selection.unmoved],
        confirmed=selection.confirmed,
        most=MOST,
        plan=_plan(visit, moved, answers) if move == "replay" else None,
    )


def act(visit: Visit) -> Response:
    """`POST /act`: what the preview showed. Moves only what still stands where the preview saw it."""
    move, answers, why = _asked(visit.form)
    tenant = visit.tenant(visit.form.get("tenant"))
    chosen, overtaken = _meant(visit, tenant)
    selection = _select(visit, tenant, chosen, move, answers) if chosen else Selection()
    done = list(move_them(visit.at, selection.chosen, move, visit.by, answers, why))
    left = [f"{one.id} was not moved: it is {one.state}." for one in done if not one.moved]
    return visit.page(
        "done.html",
        "Done",
        200 if any(one.moved for one in done) else 409,
        move=move,
        moved=[one for one in done if one.moved],
        left=[*overtaken, *selection.unmoved, *left],
        tenant=tenant,
    )


def _asked(form: Form) -> tuple[Literal["replay", "discard"], dict[str, Any], str]:
    """What is to be done, the answers, and why. Raises Refusal, ConfigurationError."""
    move, why = _MOVES.get(form.get("move")), form.get("why")
    if move is None:
        raise Refusal(400, "Not understood", "There is no such act. Nothing was done.")
    if move == "discard":
        if not why:
            raise Refusal(
                400, "Say why", "Setting aside is for good: say why, without personal data. Nothing was done."
            )
        return move, {}, why
    registration = form.get("named") or form.get("registration") or None
    verdict = form.get("verdict")
    if verdict and verdict not in set(VerdictAnswer):
        raise Refusal(400, "Not understood", "There is no such verdict. Nothing was done.")
    return move, answers_of(registration, verdict or None, form.every("accept") or None), why


def _meant(visit: Visit, tenant: str) -> tuple[list[Event], list[str]]:
    """The events that a form names, the oldest first, or all of a group; and what has moved since it was shown."""
    if visit.form.get("all"):
        names = {name: visit.form.get(name) for name in ("tenant", "state", "reason")}
        wanted = visit.form.get("cause")
        found = islice(_named(visit, names).find(visit.at, oldest=True), 10 * MOST)
        fitting = (event for event in found if not wanted or handle(cause(event)) == wanted)
        return list(islice(fitting, MOST)), []
    events, overtaken = list[Event](), list[str]()
    for named in visit.form.every("event")[:MOST]:
        id, _, seen = named.partition(".")
        event = find_event(visit.at, id, tenant)
        if event is None:
            overtaken.append(f"There is no event {id[:40]} any more.")
        elif mark(event) != seen:
            why = f" ({event.reason or event.result})" if event.reason or event.result else ""
            overtaken.append(f"{id} has moved meanwhile: it is {event.state}{why} now. It was left as it is.")
        else:
            events.append(event)
    return sorted(events, key=queries.place), overtaken


def _select(
    visit: Visit, tenant: str, chosen: list[Event], move: Literal["replay", "discard"], answers: dict[str, Any]
) -> Selection:
    ids = tuple(event.id for event in chosen)
    return select(visit.at, Filters(tenant=tenant, ids=ids), move, answers)


def _plan(visit: Visit, moved: list[Event], answers: dict[str, Any]) -> Plan | None:
    """What would be written with these answers, for one event: for many it would cost as many calls to Rhythm."""
    if len(moved) != 1 or moved[0].tenant not in visit.at.tenants.tenants:
        return None
    return plan_event(visit.at, moved[0].tenant, moved[0].id, visit.by, answers)
