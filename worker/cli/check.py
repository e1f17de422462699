"""`examrelay check`: the configuration and Redis; with `--live` also whether work moves, and each tenant's Rhythm."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from worker.bootstrap import Services
from worker.cli.filters import AsJson, TenantFilter
from worker.cli.output import show_json, show_table
from worker.cli.services import open_services
from worker.errors import ConfigurationError
from worker.health import Finding, readiness
from worker.ledger.durability import check_redis, why_refused
from worker.ledger.processes import processes, silent, workerless

_WORDS = {True: "ok", False: "FAILS", None: "unknown"}


def check(
    live: Annotated[
        bool, typer.Option("--live", help="Also: sweeps run, work moves, each Rhythm answers. Changes nothing there.")
    ] = False,
    tenant: TenantFilter = None,
    as_json: AsJson = False,
) -> None:
    """Whether the configuration is whole, and Redis keeps what it acknowledges.

    Exit code 0: it holds. 1: it does not. 3: some of it could not be checked.
    """
    at, tenants = open_services(tenant)
    found = [*_configuration(at, tenants), *_running(at, live), *(_live(at, tenants) if live else ())]
    if as_json:
        show_json({"holds": all(one.holds for one in found), "checks": [asdict(one) for one in found]})
    else:
        show_table(
            ["check", "tenant", "", "detail"], [(one.check, one.tenant, _WORDS[one.holds], one.detail) for one in found]
        )
    holds = [one.holds for one in found]
    if not all(holds):
        raise typer.Exit(1 if False in holds else 3)


def _configuration(at: Services, tenants: list[str]) -> Iterator[Finding]:
    yield Finding("configuration", True, f"{at.settings.config}: {', '.join(at.tenants.tenants)}")
    at.redis.ping()  # away: said in the words that all commands have for it
    yield _said("redis", lambda: check_redis(at.redis, at.settings))
    yield _said("index key", lambda: "as given" if at.identity and at.settings.identity_key else "kept in Redis")
    for name in tenants:
        if name not in at.tenants.tenants:
            yield Finding("tenants file", False, "has events here and is not in the tenants file", name)
        elif at.tenants[name].rhythm.guard == "none":
            given_up = 'guard = "none": an edit in Rhythm made between our read and our write may be overwritten'
            yield Finding("guard", True, given_up, name)


def _said(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, True, look())
    except ConfigurationError as error:
        return Finding(check, False, str(error))


def _running(at: Services, live: bool) -> Iterator[Finding]:
    """Whether results are taken, and which processes are missing; which only a ledger that is `live` must have."""
    refuses = why_refused(at.redis, at.settings.replicas)
    yield Finding("receiver", refuses is None, refuses or "Redis takes what comes")
    found = processes(at.redis)
    without, silences = workerless(found), silent(found)
    yield Finding("workers", without is None or not live, without or "at work")
    yield from (Finding("process", not live, silence) for silence in silences)


def _live(at: Services, tenants: list[str]) -> Iterator[Finding]:
    from tasks.operator.probe import probe  # tasks bring the Celery app, which reads the environment when imported

    ready = readiness(at).checks
    for name in ("sweep", "work"):
        if name in ready:
            yield Finding(name, ready[name] is None, ready[name] or "as it should be")
    for name in tenants:
        if name in at.tenants.tenants:
            yield from probe(at, name)
