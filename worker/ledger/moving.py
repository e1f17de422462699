"""A tenant moves to another ledger: all its keys, as Redis itself writes them down. Nobody may work on it meanwhile.

The rows: tenant and index key as it is kept; of each key name, expiry (ms since 1970; 0: none), value; an empty row.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any, Final

import redis

from worker.errors import ConfigurationError
from worker.ledger.audit.events import paged
from worker.ledger.client import text
from worker.ledger.keys import INDEX_KEY, TENANTS, key

_PAGE: Final = 500


def take_out(client: "redis.Redis", tenant: str) -> Iterator[list[Any]]:
    """The rows. The keys stay; this ledger's sweep, which would prune some, does not know the tenant any more."""
    client.srem(TENANTS, tenant)
    yield [tenant, text(client.get(INDEX_KEY) or "")]
    for names in paged(client.scan_iter(key(tenant, "*"), count=_PAGE), _PAGE):
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.pexpiretime(name)
            pipeline.dump(name)
        answers = iter(pipeline.execute())
        for name, at, value in zip(names, answers, answers, strict=True):
            if value is not None:  # it has not expired meanwhile
                yield [text(name), max(at, 0), b64encode(value).decode()]
    yield []


def bring_in(client: "redis.Redis", tenant: str, rows: Iterator[list[Any]]) -> None:
    """Store the rows. May be repeated until it has succeeded. Raises ConfigurationError."""
    named, index_key = next(rows, ["nothing", ""])
    if named != tenant or client.sismember(TENANTS, tenant):
        raise ConfigurationError(f"{tenant} is in this ledger already, or not in this file, which holds {named}.")
    client.set(INDEX_KEY, index_key, nx=True)
    if text(client.get(INDEX_KEY) or "").split()[:1] != index_key.split()[:1]:
        raise ConfigurationError("this ledger has another EXAMRELAY_INDEX_KEY: no sitting would be found again.")
    pipeline = client.pipeline(transaction=False)
    while row := next(rows, None):
        pipeline.restore(row[0], row[1], b64decode(row[2]), replace=True, absttl=True)
        if len(pipeline) == _PAGE:
            pipeline.execute()
    pipeline.execute()
    if row is None:
        raise ConfigurationError("the end is missing: export the tenant again, and import all of it.")
    client.sadd(TENANTS, tenant)
