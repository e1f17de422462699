"""OAuth tokens shared by all processes: a `TokenStore` (worker/rhythm/auth.py) in Redis, sealed when there are keys."""

import json
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import redis

from schemas.event import Reason
from worker.ledger.client import Scripts, text
from worker.ledger.gate import GateClosed
from worker.ledger.keys import TOKEN
from worker.ledger.sealed import SealBroken, Sealer, SealUnknown
from worker.ledger.times import milliseconds
from worker.rhythm.auth import REFRESH_SPACING, Token

#: Longer than any fetch may take (`timeout_seconds` is at most 30): a holder that died is given up then.
LEASE: Final = timedelta(seconds=35)
#: So long one waits for another's fetch; then the events are put back and Rhythm is tried again.
LONGEST_LOCK_WAIT: Final = timedelta(seconds=5)
_LOOK_SECONDS: Final = (0.02, 0.08)


class RedisTokens:
    """Tokens in Redis. Its errors spend no attempt and leave the gate as it is: nothing of Rhythm's is to blame."""

    def __init__(self, client: "redis.Redis", scripts: Scripts, sealer: Sealer, lease: timedelta = LEASE) -> None:
        self._client = client
        self._scripts = scripts
        self._sealer = sealer
        self._lease = lease

    def get(self, key: str) -> Token | None:
        """See TokenStore. Raises GateClosed for one that cannot be opened: fetching another would begin a race."""
        stored = self._client.get(TOKEN + key)
        if stored is None:
            return None
        try:
            members: dict[str, Any] = json.loads(self._sealer.open_text(text(stored), key))
        except SealUnknown as error:
            raise GateClosed(Reason.RHYTHM_UNAVAILABLE, f"the OAuth token: {error.detail}", error.retry_after) from None
        except SealBroken:
            return None
        return Token.model_validate(members)

    def put(self, key: str, token: Token) -> None:
        """See TokenStore. Kept for as long as it may be used, or must not be exchanged."""
        members = token.model_dump(mode="json") | {"value": token.value.get_secret_value()}
        keep = max(token.stale_at - token.fetched_at, REFRESH_SPACING)
        self._scripts("token", TOKEN + key, "put", self._sealer.seal_text(json.dumps(members), key), milliseconds(keep))

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """See TokenStore. Raises GateClosed when another has it for `LONGEST_LOCK_WAIT`."""
        holder, ends = secrets.token_hex(8), time.monotonic() + LONGEST_LOCK_WAIT.total_seconds()
        while not self._scripts("token", TOKEN + key, "lock", holder, milliseconds(self._lease)):
            if time.monotonic() > ends:
                wait = timedelta(seconds=1)
                raise GateClosed(Reason.RHYTHM_UNAVAILABLE, "another process is fetching the OAuth token", wait)
            time.sleep(random.uniform(*_LOOK_SECONDS))  # jitter
        try:
            yield
        finally:
            self._scripts("token", TOKEN + key, "unlock", holder)
