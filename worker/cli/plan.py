"""`examrelay plan`: what would be written, and why. Writes nothing."""

import json
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any

import typer

from tasks.operator.listing import Filters
from tasks.operator.plan import Plan, plan_event
from worker.cli.filters import AsJson, Limit, filtered
from worker.cli.output import complain, end, say, show_json, show_table
from worker.cli.services import open_services, warn_of_other_files, warnings_to_stderr, who

_CANDIDATE = ("registration", "exam", "exam date", "registered", "status", "name", "not chosen: it")


@filtered()
def plan(
    filters: Filters,
    limit: Limit = 50,
    names: Annotated[
        bool, typer.Option("--names", help="With the names of the persons registered. Your look is recorded.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """`examrelay plan`: ends with 1 when no event matches."""
    warnings_to_stderr()
    at, _ = open_services()
    warn_of_other_files(at)
    plans: list[dict[str, Any]] = []
    for event in islice(filters.find(at), limit):
        event_plan = plan_event(at, event.tenant, event.id, who() if names else "")
        if event_plan is not None:
            candidates = [one._asdict() for one in event_plan.candidates]
            plans.append(asdict(event_plan) | {"candidates": candidates, "says": event_plan.says})
            if not as_json:
                _show(event_plan)
    if as_json:
        show_json(json.loads(json.dumps(plans, default=str)))
    elif not plans:
        complain("no event matches; `examrelay events list` shows the events")
    end(bool(plans))


def _show(plan: Plan) -> None:
    say(f"{plan.id} is {plan.state}: {plan.says}")
    for name, (theirs, ours) in plan.difference.items():
        say(f"  {name}: {_text(theirs)} -> {_text(ours)}")
    for operation in plan.operations:
        say(f"  {json.dumps(operation, default=str)}")
    if plan.candidates:
        show_table(_CANDIDATE, plan.candidates)


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
