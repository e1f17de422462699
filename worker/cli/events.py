"""Commands that show events: list, follow, show, and what waits for a person."""

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any, Final

from schemas.event import Event, EventState
from worker.bootstrap import Services
from worker.cli.filters import STOPPED, Filters
from worker.cli.output import complain, say, show_json, show_line, show_table, suggest
from worker.cli.steer import answer_to
from worker.ledger import queries

#: In the order in which a narrow terminal needs them.
_COLUMNS: Final = ("id", "state", "reason or result", "received", "registration", "source", "tenant", "detail")
_STOPPED_COLUMNS: Final = ("id", "reason", "detail", "received", "registration", "source", "tenant")
_STRAY_COLUMNS: Final = ("stray", "at", "why", "task", "bytes")
#: Ids and places in a detail.
_ITS_OWN: Final = re.compile(
    r"evt_\w+|(?<=registration )\S+|(?<=written to )\S+|(?<=likely: ).*|(?<=registrations: ).*"
    r"|(?<=at line )\d+ column \d+"
)
#: Of how many events causes are counted, and how many causes are shown.
_LOOKED_AT: Final = 10_000
_CAUSES_SHOWN: Final = 15
#: How many events are looked at for moves, and how often.
_FOLLOWED: Final = 500
_FOLLOW_SECONDS: Final = 1.0
#: Where looking takes long, it rests this many times as long: whoever watches does not keep Redis busy.
_REST: Final = 9


def list_events(at: Services, filters: Filters, limit: int, as_json: bool) -> None:
    """`events list`: the newest first."""
    found = list(islice(filters.find(at), limit))
    if as_json:
        show_json([_plain(event) for event in found])
    else:
        show_table(_COLUMNS, map(_row, found), wraps="detail")


def follow_events(at: Services, filters: Filters, limit: int, as_json: bool) -> None:
    """`events list --follow`: the newest, oldest first, then each event again whenever it has moved; until Ctrl-C.

    JSON: one document a line.
    """
    shown: dict[str, tuple[object, ...]] | None = None
    newest = datetime.min.replace(tzinfo=UTC)
    if not as_json:
        show_line(_COLUMNS)
    while True:
        began = time.monotonic()
        found = list(_looked_at(filters.find(at), newest, max(limit, _FOLLOWED)))
        rows = {event.id: _row(event) for event in found}
        changed = found[:limit] if shown is None else [one for one in found if shown.get(one.id) != rows[one.id]]
        for event in reversed(changed):
            say(json.dumps(_plain(event))) if as_json else show_line(rows[event.id])
        newest = max([newest, *(event.received_at for event in changed)])
        shown = rows
        sys.stdout.flush()
        time.sleep(max(_FOLLOW_SECONDS, _REST * (time.monotonic() - began)))


def _looked_at(found: Iterator[Event], newest: datetime, most: int) -> Iterator[Event]:
    """The newest `most`, and however many came since `newest`."""
    return (
        one for place, one in takewhile(lambda each: each[0] < most or each[1].received_at > newest, enumerate(found))
    )


def list_stopped(at: Services, filters: Filters, limit: int, as_json: bool) -> None:
    """`held list`, `dead list`: how many for each reason and cause, then the events."""
    every = list(islice(filters.find(at), max(limit, _LOOKED_AT)))
    found = every[:limit]
    causes = Counter((str(event.reason), cause(event)) for event in every)
    reasons = Counter[str]()
    for (reason, _), count in causes.items():
        reasons[reason] += count
    malformed = queries.malformed(at.redis) if filters.state is EventState.DEAD else 0
    strays = queries.strays(at.redis) if filters.state is EventState.DEAD else []
    if as_json:
        listed = [_plain(event) for event in found]
        more = (
            {"malformed": malformed, "strays": [asdict(stray) for stray in strays]}
            if filters.state is EventState.DEAD
            else {}
        )
        told = [{"reason": reason, "cause": why, "events": count} for (reason, why), count in causes.most_common()]
        show_json({"reasons": reasons, "causes": told, "counted": len(every), "events": listed, **more})
        return
    rows = [(count, reason, why) for (reason, why), count in causes.most_common(_CAUSES_SHOWN)]
    show_table(["events", "reason", "cause"], rows, wraps="cause")
    if len(causes) > _CAUSES_SHOWN:
        say(f"… and {len(causes) - _CAUSES_SHOWN} more causes")
    if len(every) >= _LOOKED_AT:
        say(f"counted over the newest {len(every)}; for all of them, by reason: examrelay status")
    if found:
        say("")
        show_table(_STOPPED_COLUMNS, map(_stopped_row, found), wraps="detail")
        suggest(f"\nwhat to answer: examrelay events show {found[0].id} · what each reason means: docs/operations.md")
    if strays:
        say("\nmessages on nobody's books: examrelay strays")
        show_table(_STRAY_COLUMNS, [(one.id, one.at, one.why, one.task, one.bytes) for one in strays])
    if malformed:
        say(f"\n{malformed} queue entries were no messages: examrelay strays show malformed")


def cause(event: Event) -> str:
    """What an event has in common with others that stopped for the same cause: its detail without what is its own."""
    return _ITS_OWN.sub("…", event.detail or "")


def _plain(event: Event) -> dict[str, Any]:
    """An event of a listing, which is read without its history."""
    return event.model_dump(mode="json", exclude={"history", "due_at"})


def _row(event: Event) -> tuple[object, ...]:
    received, reason = event.received_at, event.reason or event.result
    return event.id, event.state, reason, received, event.registration, event.source, event.tenant, event.detail


def _stopped_row(event: Event) -> tuple[object, ...]:
    return event.id, event.reason, event.detail, event.received_at, event.registration, event.source, event.tenant


def show_event(at: Services, id: str, tenant: str | None, as_json: bool) -> bool:
    """`events show`: everything known of one event but its payload. Returns whether there is one."""
    tenants = [tenant] if tenant else queries.tenants(at.redis)
    event = next(filter(None, (queries.event(at.redis, name, id) for name in tenants)), None)
    if event is None:
        complain(f"there is no event {id}; `examrelay events list` shows what there is")
        return False
    if as_json:
        show_json(event.model_dump(mode="json"))
        return True
    fields = event.model_dump(exclude={"history"})
    show_table(["field", "value"], [(name, value) for name, value in fields.items() if value is not None])
    say("")
    show_table(["at", "move", "by", "reason"], [(one.at, one.move, one.by, one.reason) for one in event.history])
    if event.state in STOPPED:
        suggest(f"\nwhat would be written: examrelay plan --id {id}")
        suggest(f"again: examrelay replay --id {id}{answer_to(event)}")
        suggest(f"never: examrelay discard --id {id} --why …")
    return True
