"""`examrelay plan`: what would be written, and why. Writes nothing."""

import json
from dataclasses import asdict
from itertools import islice
from typing import Any

from tasks.operator.plan import plan_event
from worker.cli.filters import AsJson, Filters, Limit, filtered
from worker.cli.output import complain, end, say, show_json
from worker.cli.services import open_services, warnings_to_stderr


@filtered()
def plan(filters: Filters, limit: Limit = 50, as_json: AsJson = False) -> None:
    """`examrelay plan`: ends with 1 when no event matches."""
    warnings_to_stderr()
    at, _ = open_services()
    plans: list[dict[str, Any]] = []
    for event in islice(filters.find(at), limit):
        event_plan = plan_event(at, event.tenant, event.id)
        if event_plan is not None:
            plans.append(asdict(event_plan))
            if not as_json:
                _show(plans[-1])
    if as_json:
        show_json(json.loads(json.dumps(plans, default=str)))
    elif not plans:
        complain("no event matches; `examrelay events list` shows the events")
    end(bool(plans))


def _show(plan: dict[str, Any]) -> None:
    say(f"{plan['id']} ({plan['state']}): {plan['verdict']}{': ' + plan['detail'] if plan['detail'] else ''}")
    if plan["registration"]:
        say(f"  registration {plan['registration']}")
    for id, why in plan["not_chosen"].items():
        say(f"  not {id}: {why}")
    for name, (theirs, ours) in plan["difference"].items():
        say(f"  {name}: {_text(theirs)} -> {_text(ours)}")
    for operation in plan["operations"]:
        say(f"  {json.dumps(operation, default=str)}")


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
