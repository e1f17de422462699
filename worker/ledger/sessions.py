"""Who is signed in to the console. A token is stored as its digest only, so that Redis' file signs nobody in."""

import hashlib
import secrets
from typing import Any, Final

import redis

from worker.ledger.client import text
from worker.ledger.keys import INVITATION, SESSION, SIGN_IN_FAILURES

#: A working day; signing out ends a session at once.
_SESSION_SECONDS: Final = 12 * 3600
_INVITATION_SECONDS: Final = 3600
_FAILURE_SECONDS: Final = 900
#: How many wrong passwords for one name are tried in that time.
FAILURES_ALLOWED: Final = 10


def begin(client: "redis.Redis", user: str) -> str:
    """Keep a new session. Returns its token, for the browser alone. `user`: what `found` gives back."""
    token = secrets.token_urlsafe(32)
    client.set(SESSION + _digest(token), user, ex=_SESSION_SECONDS)
    return token


def found(client: "redis.Redis", token: str) -> str | None:
    """The user of a session that has not ended, or None."""
    user: Any = client.get(SESSION + _digest(token))
    return None if user is None else text(user)


def end(client: "redis.Redis", token: str) -> None:
    """The token signs nobody in any more."""
    client.delete(SESSION + _digest(token))


def invite(client: "redis.Redis", name: str) -> str:
    """A password with which `name` may sign in once, within an hour."""
    code = "-".join(secrets.token_hex(2) for _ in range(6))
    client.set(INVITATION + _digest(code), name, ex=_INVITATION_SECONDS)
    return code


def invited(client: "redis.Redis", code: str) -> str | None:
    """Whose password it is, which is used up by that; or None."""
    name: Any = client.getdel(INVITATION + _digest(code))
    return None if name is None else text(name)


def failures(client: "redis.Redis", name: str) -> int:
    """How many wrong passwords were tried for a name lately."""
    tried: Any = client.get(SIGN_IN_FAILURES + _digest(name))
    return int(tried or 0)


def failed(client: "redis.Redis", name: str) -> None:
    """One more. The time begins with the first."""
    place = SIGN_IN_FAILURES + _digest(name)
    with client.pipeline() as pipeline:
        pipeline.set(place, 0, ex=_FAILURE_SECONDS, nx=True)
        pipeline.incr(place)
        pipeline.execute()


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
