"""The ledger that a command works on, and who gives the command."""

import os

from worker.bootstrap import Services, build
from worker.errors import ConfigurationError
from worker.ledger import queries
from worker.local.running import Running, find
from worker.settings import environment, load_local_settings, load_settings, take_variables


def join() -> Running | None:
    """The `examrelay up` beside this process, if any. Without a REDIS_URL of its own it takes that one's variables."""
    local = load_local_settings()
    running = find(local.data)
    if running is not None and local.redis_url is None:
        take_variables(running.variables)
    return running


def open_services(tenant: str | None = None) -> tuple[Services, list[str]]:
    """The ledger of REDIS_URL, or else of the `examrelay up` beside us; and the tenants that a command is about.

    Raises ConfigurationError, also for a tenant that there is not.
    """
    join()
    at = build(load_settings(), patient=False)
    known = sorted({*queries.tenants(at.redis), *at.tenants.tenants})
    if tenant is not None and tenant not in known:
        raise ConfigurationError(f"there is no tenant {tenant}. There are: {', '.join(known)}.")
    return at, [tenant] if tenant else known


def who() -> str:
    """The operator, as acts are recorded."""
    return environment().get("USER") or f"uid {os.getuid()}"
