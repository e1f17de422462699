"""What a command says, and how it ends, when it could not do its work."""

from worker.cli.output import UNCHECKED, USAGE
from worker.errors import ConfigurationError, Unchecked
from worker.ledger.client import LOADING, REFUSED, UNAVAILABLE
from worker.ledger.sealed import SealBroken, SealUnknown

#: How Redis' errors begin when its disk or memory is full, replicas are missing, or it is itself a replica.
_REFUSES_WRITES = ("MISCONF", "OOM", "NOREPLICAS", "READONLY")


def explain(error: Exception) -> tuple[int, str] | None:
    """The exit code, and one sentence that says what to do. None for any other error: that is a bug."""
    match error:
        case ConfigurationError():
            return USAGE, str(error)
        case Unchecked():
            return UNCHECKED, str(error)
        case SealUnknown() | SealBroken():
            return UNCHECKED, f"stored data cannot be decrypted: {error.args[0]}"
    if isinstance(error, LOADING):
        return UNCHECKED, "Redis has just started and is reading its data: nothing is lost; try again in a moment."
    if isinstance(error, REFUSED) and str(error).startswith(_REFUSES_WRITES):
        return UNCHECKED, f"Redis takes no writes now ({error}); `examrelay status` says what else is wrong."
    if isinstance(error, REFUSED):
        return UNCHECKED, (
            f"Redis refuses a command of the ledger ({error}). If a key `er:...` was changed by hand, "
            "`examrelay audit` shows what is wrong."
        )
    if isinstance(error, UNAVAILABLE):
        return UNCHECKED, f"Redis does not answer ({error}). Check REDIS_URL and that it runs, or start `examrelay up`."
    return None
