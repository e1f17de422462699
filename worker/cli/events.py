"""Commands that show events: `events list`, `events show`, `held list`, `dead list`."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Annotated, Any, Final

import typer

from schemas.event import Event, EventState, Reason
from tasks.operator import contents
from tasks.operator.listing import COUNTED, STOPPED, Filters, causes, find_event
from tasks.operator.steering import next_step
from worker.bootstrap import Services
from worker.cli.filters import AsJson, Limit, TenantFilter, filtered
from worker.cli.output import complain, end, say, say_malformed, show_fields, show_json, show_line, show_table, suggest
from worker.cli.services import open_services, who
from worker.ledger import misdirected, queries, strays

#: In the order in which a narrow terminal needs them.
_COLUMNS: Final = ("id", "state", "reason or result", "received", "registration", "source", "tenant", "detail")
_STOPPED_COLUMNS: Final = ("id", "reason", "detail", "received", "registration", "source", "tenant")
_CAUSES_SHOWN: Final = 15
_NOTED: Final = "Your look is recorded."
_TITLES: Final = {"payload": "What came in:", "written": "What was written:", "words": "What Rhythm said to the write:"}
#: `--follow`: how many events are read each time, and how often.
_FOLLOWED: Final = 500
_FOLLOW_SECONDS: Final = 1.0
#: Where reading takes long, the pause is this many times as long: a follower must not keep Redis busy.
_PAUSES: Final = 9


@filtered()
def events_list(
    filters: Filters,
    limit: Limit = 50,
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep running and print each event when it moves. Ctrl-C ends.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    at, _ = open_services()
    if follow:
        with suppress(KeyboardInterrupt):
            _follow(at, filters, limit, as_json)
        return
    events = list(islice(filters.find(at), limit))
    if as_json:
        show_json([_plain(event) for event in events])
    else:
        show_table(_COLUMNS, map(_row, events))


def _follow(at: Services, filters: Filters, limit: int, as_json: bool) -> None:
    """The newest, oldest first, then each event again whenever it has moved. JSON: one document a line."""
    shown: dict[str, tuple[object, ...]] | None = None
    newest = datetime.min.replace(tzinfo=UTC)
    if not as_json:
        show_line(_COLUMNS)
    while True:
        began = time.monotonic()
        events = list(_newest(filters.find(at), newest, max(limit, _FOLLOWED)))
        rows = {event.id: _row(event) for event in events}
        moved = (
            events[:limit] if shown is None else [event for event in events if shown.get(event.id) != rows[event.id]]
        )
        for event in reversed(moved):
            say(json.dumps(_plain(event))) if as_json else show_line(rows[event.id])
        newest = max([newest, *(event.received_at for event in moved)])
        shown = rows
        sys.stdout.flush()
        time.sleep(max(_FOLLOW_SECONDS, _PAUSES * (time.monotonic() - began)))


def _newest(events: Iterator[Event], since: datetime, most: int) -> Iterator[Event]:
    """The newest `most` events, and all others received after `since`."""
    numbered = takewhile(lambda each: each[0] < most or each[1].received_at > since, enumerate(events))
    return (event for _, event in numbered)


@filtered(EventState.HELD)
def held_list(filters: Filters, limit: Limit = 50, as_json: AsJson = False) -> None:
    _list_stopped(open_services()[0], filters, limit, as_json)


@filtered(EventState.DEAD)
def dead_list(filters: Filters, limit: Limit = 50, as_json: AsJson = False) -> None:
    at, _ = open_services()
    (found, _), malformed = strays.page(at.redis, limit), queries.malformed(at.redis)
    more = {"malformed": malformed, "misdirected": misdirected.count(at.redis)}
    _list_stopped(at, filters, limit, as_json, strays=[stray._asdict() for stray in found], **more)
    if as_json:
        return
    if found:
        say("\nmessages to `tasks.receive` that could not be recorded: examrelay strays list")
        show_table(("stray", "why", "at", "bytes", "task"), found)
    say_malformed(malformed)
    for line in misdirected.warning(at.redis):
        say(f"\n{line}")


def _list_stopped(at: Services, filters: Filters, limit: int, as_json: bool, **more: Any) -> None:
    """How many for each reason and cause, then the events. `more`: further members of the JSON document."""
    counted = list(islice(filters.find(at), max(limit, COUNTED)))
    events, groups = counted[:limit], causes(counted)
    if as_json:
        reasons = Counter(str(event.reason) for event in counted)
        by_cause = [{"reason": reason, "cause": why, "events": count} for reason, why, count in groups]
        listed = [_plain(event) for event in events]
        show_json({"reasons": reasons, "causes": by_cause, "counted": len(counted), "events": listed, **more})
        return
    rows = [(count, reason, why) for reason, why, count in groups[:_CAUSES_SHOWN]]
    show_table(["events", "reason", "cause"], rows)
    if len(groups) > _CAUSES_SHOWN:
        say(f"… and {len(groups) - _CAUSES_SHOWN} more causes")
    if len(counted) >= COUNTED:
        say(f"counted over the newest {len(counted)}; for all of them, by reason: examrelay status")
    if events:
        say("")
        show_table(_STOPPED_COLUMNS, map(_stopped_row, events))
        suggest(f"\nwhat to answer: examrelay events show {events[0].id}\nwhat each reason means: docs/operations.md")


def _plain(event: Event) -> dict[str, Any]:
    """An event of a listing, which is read without its history."""
    return event.model_dump(mode="json", exclude={"history", "due_at"})


def _row(event: Event) -> tuple[object, ...]:
    received, reason = event.received_at, event.reason or event.result
    return event.id, event.state, reason, received, event.registration, event.source, event.tenant, event.detail


def _stopped_row(event: Event) -> tuple[object, ...]:
    return event.id, event.reason, event.detail, event.received_at, event.registration, event.source, event.tenant


def events_show(
    id: Annotated[str, typer.Argument()],
    tenant: TenantFilter = None,
    payload: Annotated[bool, typer.Option("--payload", help=f"What came in. {_NOTED}")] = False,
    written: Annotated[bool, typer.Option("--written", help=f"What was written to Rhythm. {_NOTED}")] = False,
    words: Annotated[bool, typer.Option("--words", help=f"What Rhythm said to the write. {_NOTED}")] = False,
    as_json: AsJson = False,
) -> None:
    at, _ = open_services()
    event = find_event(at, id, tenant)
    if event is None:
        complain(f"there is no event {id}; `examrelay events list` shows what there is")
        end(False)
    asked = {"payload": payload, "written": written, "words": words}
    shown = {name: getattr(contents, name)(at, event.tenant, id, who()) for name, wanted in asked.items() if wanted}
    if as_json:
        more = {name: asdict(what) if name == "written" and what else what for name, what in shown.items()}
        show_json(event.model_dump(mode="json") | more)
    else:
        _show_event(at, event)
        for name, what in shown.items():
            say(f"\n{_TITLES[name]}")
            if what is None:
                say("nothing is kept of that")
            elif name == "written":
                show_fields(_written(what))
            else:
                say(what)
    end(True)


def _written(written: contents.Written) -> dict[str, Any]:
    """The members as rows, and a row for each value."""
    members = asdict(written)
    return (members.pop("values") or {}) | members


def _show_event(at: Services, event: Event) -> None:
    show_fields(event.model_dump(exclude={"history"}))
    say("")
    show_table(["at", "move", "by", "reason"], [(line.at, line.move, line.by, line.reason) for line in event.history])
    suggest(f"\nnext: {next_step(at, event)}")
    if event.state in STOPPED:
        suggest(f"what would be written: examrelay plan --id {event.id}{_names(event)}")
        suggest(f"what came in: examrelay events show {event.id} --payload")
        suggest(f"never: examrelay discard --id {event.id} --why …")


def _names(event: Event) -> str:
    return " --names" if event.reason is Reason.REGISTRATION_AMBIGUOUS else ""
