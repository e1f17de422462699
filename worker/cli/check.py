"""`examrelay check`: the configuration and Redis; with `--live` also whether work moves, and each tenant's Rhythm."""

from dataclasses import asdict
from typing import Annotated, Final

import typer

from tasks.operator import checks
from worker.cli.filters import AsJson, TenantFilter
from worker.cli.output import DOES_NOT, UNCHECKED, show_json, show_table
from worker.cli.services import join, open_services, warnings_to_stderr
from worker.settings import load_tenants_file

_WORDS: Final = {True: "ok", False: "FAILS", None: "unknown"}


def check(
    live: Annotated[
        bool,
        typer.Option("--live", help="Also whether sweeps run, work moves, and each Rhythm answers. Writes nothing."),
    ] = False,
    file: Annotated[bool, typer.Option("--file", help="Check the tenants file alone. Needs no Redis.")] = False,
    tenant: TenantFilter = None,
    as_json: AsJson = False,
) -> None:
    if live:
        warnings_to_stderr()
    if file:
        join()
        findings = list(checks.check_file(*load_tenants_file()))
    else:
        at, tenants = open_services(tenant)
        findings = list(checks.check(at, tenants, live=live))
    holds = [finding.holds for finding in findings]
    if as_json:
        show_json({"holds": all(holds), "checks": [asdict(finding) for finding in findings]})
    else:
        rows = [(_WORDS[finding.holds], finding.check, finding.tenant, finding.detail) for finding in findings]
        show_table(["", "check", "tenant", "detail"], rows)
    if not all(holds):
        raise typer.Exit(DOES_NOT if False in holds else UNCHECKED)
