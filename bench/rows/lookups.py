"""Rhythm calls an event where the result names no registration: matched by student, or by e-mail. A count, no time."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from bench.line import Line
from bench.payloads import Sitting, sittings
from bench.runs import all_effects, backlog
from bench.session import Session
from tests.events import registration

_NAMES: Final[dict[str, Callable[[dict[str, Any]], None]]] = {
    "student": lambda body: body["examDelivery"].update(eligibilityId=None),
    "e-mail": lambda body: (
        body["examDelivery"].update(eligibilityId=None),
        body["candidate"].update(orgCandidateId=None),
    ),
}


def measure(session: Session) -> Iterator[Line]:
    """One exam with many open registrations; a part of them gets its result."""
    ours = session.ours("lookups", rhythm=session.full)
    for name, without in _NAMES.items():
        given = [_without(one, without) for one in sittings(session.size.lookups)]
        others = session.size.registrations - session.size.lookups
        session.full.sandbox.seed(ours.org, [_other(number) for number in range(others)])
        run = backlog(ours, session.full, given)
        session.runs[f"matched by {name}"] = [run]
        yield Line(
            f"Rhythm calls an event, matched by {name}",
            run.calls,
            at_most=0.15,
            aim=0.06,
            ours_effects=all_effects([run]),
            note=f"{len(given):,} events, {session.size.registrations:,} open registrations of one exam",
        )
    ours.end()


def _without(sitting: Sitting, without: Callable[[dict[str, Any]], None]) -> Sitting:
    body = json.loads(sitting.body)
    without(body)
    return replace(sitting, body=json.dumps(body, separators=(",", ":")).encode())


def _other(number: int) -> dict[str, Any]:
    """An open registration of the same exam."""
    who = f"other-{number}"
    return registration(f"reg-{who}", student_id=f"stu-{who}", email_address=f"{who}@example.org")
