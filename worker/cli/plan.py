"""`examrelay plan`: what would be written, and why. Writes nothing."""

import json
from dataclasses import asdict
from itertools import islice
from typing import Any

from worker.bootstrap import Services
from worker.cli.filters import Filters
from worker.cli.output import complain, say, show_json


def plan(at: Services, filters: Filters, limit: int, as_json: bool) -> bool:
    """Show the plan of each event that the filters find. Returns whether there was any."""
    from tasks.operator.plan import plan_event  # brings the Celery app, which reads the environment when imported

    plans: list[dict[str, Any]] = []
    for event in islice(filters.find(at), limit):
        found = plan_event(at, event.tenant, event.id)
        if found is not None:
            plans.append(asdict(found))
            if not as_json:
                _show(plans[-1])
    if as_json:
        show_json(json.loads(json.dumps(plans, default=str)))
    elif not plans:
        complain("no event fits; `examrelay events list` shows what there is")
    return bool(plans)


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
