"""One process that calls Rhythm with the shared OAuth token, when it is told to, at the time that it is told.

A line in: seconds after the beginning of its calendar. It makes two calls, and a line out says how they went.
"""

import sys
from datetime import UTC, datetime, timedelta

import redis

from tests.integration.rhythm_peer import connection
from worker.ledger.client import Scripts
from worker.ledger.sealed import Sealer
from worker.ledger.tokens import RedisTokens
from worker.rhythm.client import Rhythm
from worker.rhythm.transport import open_session

BEGINNING = datetime(2026, 3, 1, tzinfo=UTC)


def main(redis_url: str, rhythm_url: str, key: str) -> None:
    credentials = {
        "kind": "oauth",
        "domain": rhythm_url,
        "client_id": "sandbox-client",
        "client_secret": "env:SECRET",
    }
    tenant = connection(rhythm_url, credentials=credentials, timeout_seconds=30)
    client = redis.Redis.from_url(redis_url)
    store = RedisTokens(client, Scripts(client), Sealer([bytes.fromhex(key)] if key else []))
    now = [BEGINNING]
    with open_session() as session:
        for line in sys.stdin:
            now[0] = BEGINNING + timedelta(seconds=float(line))
            # As each batch of events does: nothing is remembered from the one before.
            rhythm = Rhythm(tenant, session, lambda: None, store, lambda: now[0])
            try:
                said = [rhythm.get("reg-1") is not None for _ in range(2)]
            except Exception as error:  # noqa: BLE001  # told to the test
                said = [type(error).__name__, str(error)]
            print(said, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
