"""`examrelay tenants`: moves a tenant to another ledger, as docs/deploy.md says."""

import json
import sys

from worker.bootstrap import Services
from worker.cli.output import say
from worker.cli.services import open_services
from worker.errors import ConfigurationError
from worker.ledger import moving
from worker.ledger.processes import differences, processes


def export(tenant: str) -> None:
    for row in moving.take_out(_idle(tenant).redis, tenant):
        say(json.dumps(row))


def bring_in(tenant: str) -> None:
    rows = (json.loads(line) for line in sys.stdin if line.endswith("\n"))  # a line that was cut off has no end
    moving.bring_in(_idle(tenant).redis, tenant, rows)


def _idle(tenant: str) -> Services:
    """The ledger, when no process works for this tenant. Else raises ConfigurationError."""
    at, _ = open_services()
    found = processes(at.redis)  # those too that have fallen silent: they may come back
    if found and (tenant in at.tenants.tenants or differences(found, at.tenants.digest)):
        raise ConfigurationError(f"processes may work for {tenant}: take it out of the file, and restart all of them.")
    return at
