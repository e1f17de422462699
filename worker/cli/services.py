"""The ledger that a command works on, and who gives the command."""

import logging
import os
import sys

from worker.bootstrap import Services, build
from worker.cli.output import complain
from worker.errors import ConfigurationError
from worker.ledger import queries
from worker.ledger.processes import differences, processes
from worker.local.running import Running, find
from worker.settings import environment, load_local_settings, load_settings, take_variables


def join() -> Running | None:
    """The `examrelay up` that runs on our data folder, if any. Without a REDIS_URL we take its variables."""
    local = load_local_settings()
    running = find(local.data)
    if running is not None and local.redis_url is None:
        take_variables(running.variables)
    return running


def open_services(tenant: str | None = None) -> tuple[Services, list[str]]:
    """The ledger of REDIS_URL, or else of the running `examrelay up`; and the tenants that a command is about.

    Raises ConfigurationError, also for a tenant that does not exist.
    """
    join()
    at = build(load_settings(), patient=False)
    tenants = sorted({*queries.tenants(at.redis), *at.tenants.tenants})
    if tenant is not None and tenant not in tenants:
        raise ConfigurationError(f"there is no tenant {tenant}. There are: {', '.join(tenants)}.")
    return at, [tenant] if tenant else tenants


def warn_of_other_files(at: Services) -> None:
    """What we would do is not what they do, when processes run on another tenants file than we read."""
    lives = [process for process in processes(at.redis) if process.lives]
    for warning in differences(lives, at.tenants.digest):
        complain(warning)


def who() -> str:
    """The operator, as it is recorded with each act and each look at personal data."""
    return f"operator:{environment().get('USER') or f'uid {os.getuid()}'}"


def warnings_to_stderr() -> None:
    """Keep stdout for the answer. For commands whose steps log, because workers run them too (a test finds these).

    Not for all commands: structlog takes a tenth of the time in which `status` starts.
    """
    import structlog

    structlog.configure(
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
