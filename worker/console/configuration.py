"""The tenants file as it was loaded, without its secrets; the checks; the processes."""

from collections.abc import Iterator
from typing import Any

from starlette.responses import Response

from tasks.operator.checks import check
from worker.console.visit import Visit
from worker.health import Finding
from worker.ledger.processes import processes


def show(visit: Visit) -> Response:
    """`GET /configuration`."""
    return _page(visit, live=False)


def try_out(visit: Visit) -> Response:
    """`POST /configuration/checks`: also calls each Rhythm, with calls that change nothing there."""
    return _page(visit, live=True)


def _page(visit: Visit, *, live: bool) -> Response:
    at, theirs = visit.at, visit.user.tenants
    return visit.page(
        "configuration.html",
        "Configuration",
        tenants={
            name: list(_rows(at.tenants[name].model_dump(mode="json"))) for name in theirs if name in at.tenants.tenants
        },
        users=[
            (name, user.role, [tenant for tenant in user.tenants if tenant in theirs])
            for name, user in at.tenants.console.users.items()
            if {*user.tenants} & {*theirs}
        ],
        checks=[one for one in check(at, list(theirs), live=live) if _is_for(one, visit)],
        live=live,
        processes=processes(at.redis),
        digest=at.tenants.digest,
    )


def _is_for(finding: Finding, visit: Visit) -> bool:
    """Nothing of other tenants; the configuration's own line names every one."""
    if finding.check == "configuration":
        return visit.sees_all
    return finding.tenant in (None, *visit.user.tenants) and visit.may_know(finding.detail)


def _rows(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Each key with its value, as one line. The file's secrets are stars by now."""
    if isinstance(value, dict) and value:
        for name, member in value.items():
            yield from _rows(member, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for number, member in enumerate(value, 1):
            yield from _rows(member, f"{place}[{number}]")
    elif value is not None:
        yield place, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
