"""Who may call, and how fast: API keys, OAuth tokens (vendor-behaviour 4.1), the rate limit of each tenant (4.2)."""

import math
import secrets
import time
from email.utils import formatdate
from typing import Any

from sandbox.calls import Call, Refused
from sandbox.options import RateLimit
from sandbox.world import World

_CLIENT = {
    "client_id": "sandbox-client",
    "client_secret": "sandbox-secret",
    "audience": "https://api.rhythmsoftware.com",
}


def issue_token(world: World, call: Call) -> dict[str, Any]:
    """OAuth client credentials, as Auth0 takes them."""
    if call.body.get("grant_type") != "client_credentials":
        raise Refused(400, "unsupported grant_type")
    if not _CLIENT.items() <= call.body.items():
        raise Refused(401, "unknown client, secret or audience")
    token, seconds = secrets.token_urlsafe(32), world.options.token_seconds
    world.tokens[token] = time.time() + seconds
    world.tokens_issued += 1
    return {"access_token": token, "expires_in": int(seconds), "token_type": "Bearer"}


def admit(world: World, call: Call) -> None:
    """Refuse who may not call (401 unknown, 403 another tenant's) or calls too fast (429)."""
    key = call.authorization.removeprefix("Bearer ")  # the older document has the raw key
    if key in world.options.api_keys:
        if world.options.api_keys[key] not in (None, call.tenant):
            raise Refused(403, "Forbidden")
    elif world.tokens.get(key, 0) <= time.time():
        raise Refused(401, "Unauthorized")
    if world.options.rate_limit is not None:
        _take(world, world.options.rate_limit, call.tenant)


def _take(world: World, limit: RateLimit, tenant: str) -> None:
    """One from the tenant's bucket."""
    now = time.time()
    level, filled_at = world.buckets.get(tenant, (limit.burst, now))
    level = min(limit.burst, level + (now - filled_at) * limit.calls_per_second)
    world.buckets[tenant] = (level if level < 1 else level - 1, now)
    if level < 1:
        wait_seconds = (1 - level) / limit.calls_per_second
        forms = {
            "seconds": {"Retry-After": str(max(1, math.ceil(wait_seconds)))},
            "date": {"Retry-After": formatdate(math.ceil(now + wait_seconds), usegmt=True)},
        }
        raise Refused(429, "Limit exceeded", forms.get(limit.retry_after))
