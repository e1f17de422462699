"""What recording takes and gives, for both who record: the receiver, and the ledger of everybody else."""

import secrets
from typing import Any, Final

from schemas.event import EventState, Receipt
from schemas.outcome import Source
from worker.errors import LedgerUnavailable

#: Replicas that do not have an event by then are taken for away.
REPLICAS_WITHIN_MS: Final = 400


def record_arguments(
    tenant: str, id: str, source: Source, path: str, sealed: bytes, problem: str
) -> tuple[str | bytes, ...]:
    """What the record script takes. The nonce makes a repeat of this very call harmless."""
    return tenant, id, source, path, sealed, secrets.token_hex(8), problem


def wait_arguments(replicas: int) -> tuple[int, int]:
    """What WAIT takes. It counts what went before on its own connection."""
    return replicas, REPLICAS_WITHIN_MS


def enough(acknowledged: int, replicas: int) -> None:
    """Raises LedgerUnavailable: too few replicas have it."""
    if acknowledged < replicas:
        raise LedgerUnavailable(f"{acknowledged} of {replicas} replicas have it")


def receipt(id: str, reply: list[Any]) -> Receipt:
    """The receipt in the record script's reply."""
    state, duplicate = reply
    return Receipt(id=id, state=EventState(state.decode()), duplicate=bool(duplicate))
