"""For which reasons events wait that no person is asked about: those that were tried and are due again later."""

from collections import Counter
from typing import Any, Final

import redis

from schemas.event import EventState
from worker.ledger.client import text
from worker.ledger.keys import INDEX_OF, key

#: So many are looked at, those due last first: what was never tried has no reason, and is due before them.
LOOKED_AT: Final = 2000


def reasons(client: "redis.Redis", tenant: str, state: EventState) -> dict[str, int]:
    """How many `received` or `ready` events wait for each reason, among the `LOOKED_AT` that are due last."""
    ids: Any = client.zrange(key(tenant, INDEX_OF[state]), 0, LOOKED_AT - 1, desc=True)
    pipeline = client.pipeline(transaction=False)
    for id in ids:
        pipeline.hget(key(tenant, "event", text(id)), "reason")
    return dict(Counter(text(reason) for reason in pipeline.execute() if reason is not None).most_common())
