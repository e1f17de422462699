"""Checks: the configuration and Redis; `live` also whether work moves, and each tenant's Rhythm."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import SecretStr

from worker.bootstrap import Services
from worker.errors import ConfigurationError
from worker.health import Finding, readiness
from worker.ledger.durability import check_redis, why_refused
from worker.ledger.processes import processes, silent, workerless
from worker.ledger.sentinel import why_no_failover
from worker.secret import EASY_BELOW
from worker.tenants import BodyKeys, Tenant, Tenants


def check(at: Services, tenants: list[str], *, live: bool = False) -> Iterator[Finding]:
    """One finding after the other. `live`: calls Rhythm, and changes nothing there."""
    yield from check_file(at.settings.config, at.tenants)
    yield from _redis(at, tenants)
    yield from _running(at, live)
    if live:
        yield from _live(at, tenants)


def check_file(config: Path, tenants: Tenants) -> Iterator[Finding]:
    """The tenants file alone, which has been read."""
    found = (f"{name} ({', '.join(one.sources)}; writes {one.writes})" for name, one in tenants.tenants.items())
    yield Finding("configuration", True, f"{config}: {', '.join(found)}")
    for name, tenant in tenants.tenants.items():
        if tenant.rhythm.guard == "none":
            risk = 'guard = "none": an edit in Rhythm made between our read and our write may be overwritten'
            yield Finding("guard", True, risk, name)
        yield from (Finding("credentials", True, risk, name) for risk in _easy(tenant))


def _easy(tenant: Tenant) -> Iterator[str]:
    """A sentence for each of a tenant's credentials that somebody may find by trying."""
    listed = [(f"{source}.credentials", one) for source, rules in tenant.sources.items() for one in rules.credentials]
    if tenant.read_credentials:
        listed.append(("read_credentials", tenant.read_credentials))
    for place, one in listed:
        values = one.keys.values() if isinstance(one, BodyKeys) else (value for _, value in one)
        longest = max(len(value.get_secret_value()) for value in values if isinstance(value, SecretStr))
        if longest < EASY_BELOW:
            yield f"{place} ({one.kind}): {longest} characters can be guessed; agree on {EASY_BELOW} or more, at random"


def _redis(at: Services, tenants: list[str]) -> Iterator[Finding]:
    at.redis.ping()  # raises when Redis is away, which all commands explain in the same words
    yield _finding("redis", lambda: check_redis(at.redis, at.settings))
    if why := why_no_failover(at.redis):
        yield Finding("sentinels", False, why)
    yield _finding("index key", lambda: "as given" if at.identity and at.settings.identity_key else "kept in Redis")
    for name in tenants:
        if name not in at.tenants.tenants:
            yield Finding("tenants file", False, "has events here and is not in the tenants file", name)


def _finding(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, True, look())
    except ConfigurationError as error:
        return Finding(check, False, str(error))


def _running(at: Services, live: bool) -> Iterator[Finding]:
    """Whether results are taken, and which processes are missing: a fault only for a ledger that is `live`."""
    refuses = why_refused(at.redis, at.settings.replicas)
    yield Finding("receiver", refuses is None, refuses or "Redis takes results")
    present = processes(at.redis)
    without = workerless(present)
    yield Finding("workers", without is None or not live, without or "at work")
    yield from (Finding("process", not live, sentence) for sentence in silent(present))


def _live(at: Services, tenants: list[str]) -> Iterator[Finding]:
    from tasks.operator.probe import probe  # brings Celery, which `check` alone does not need

    ready = readiness(at).checks
    for name in ("sweep", "work"):
        if name in ready:
            yield Finding(name, ready[name] is None, ready[name] or "as it should be")
    for name in tenants:
        if name in at.tenants.tenants:
            yield from probe(at, name)
