"""One call that records deliveries: the record script, then WAIT where replicas are asked for."""

import hashlib
import secrets
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, cast

from redis.exceptions import NoScriptError

from schemas.outcome import Source
from worker.errors import LedgerUnavailable
from worker.ledger.client import script_text

#: Replicas that have not confirmed an event by then count as away.
REPLICAS_WITHIN_MS: Final = 400
Arguments = tuple[str | bytes, ...]


def arguments_of(tenant: str, id: str, source: Source, path: str, sealed: bytes, problem: str) -> Arguments:
    """What the record script takes. The nonce makes a repeat of this very call harmless."""
    return tenant, id, source, path, sealed, secrets.token_hex(8), problem


class Call:
    """One round trip: the record script for some deliveries, then WAIT where replicas are asked for."""

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas
        self.script = script_text("record")
        self._sha = hashlib.sha1(self.script.encode(), usedforsecurity=False).hexdigest()  # as Redis names it

    def queue(self, pipeline: Any, batch: Sequence[Arguments]) -> None:
        """Queue it, on a pipeline of either kind that is executed with `raise_on_error=False`."""
        pipeline.execute_command("EVALSHA", self._sha, 0, *chain.from_iterable(batch))
        if self._replicas:  # WAIT counts what went before it on its own connection
            pipeline.execute_command("WAIT", self._replicas, REPLICAS_WITHIN_MS)

    def is_unloaded(self, replies: Sequence[Any]) -> bool:
        """Whether Redis does not have the script: it was restarted, or another Redis took its place."""
        return any(isinstance(reply, NoScriptError) for reply in replies)

    def answers(self, replies: list[Any]) -> list[Any]:
        """A reply for each delivery. Raises what Redis raised, and LedgerUnavailable: too few replicas have them."""
        recorded, *waited = replies
        if isinstance(recorded, Exception):
            raise recorded
        for acknowledged in waited:
            if isinstance(acknowledged, Exception):
                raise acknowledged
            if acknowledged < self._replicas:
                raise LedgerUnavailable(f"{acknowledged} of {self._replicas} replicas have it")
        return cast(list[Any], recorded)
