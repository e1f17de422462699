"""Who may call, and how fast: API keys, OAuth tokens (vendor-behaviour 4.1) and the rate limit of each tenant (4.2).

Raises `Refused`; must not look at registrations.
"""

import math
import secrets
import time
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

from sandbox.calls import Call, Refused
from sandbox.options import Options, RateLimit


class Tokens:
    """OAuth client credentials, as Auth0 hands them out: form-encoded, JSON back."""

    def __init__(self) -> None:
        self.issued = 0
        self._live: dict[str, tuple[float, str | None]] = {}

    def issue(self, options: Options, call: Call) -> dict[str, Any]:
        form = {name: values[-1] for name, values in parse_qs(call.raw.decode(errors="replace")).items()}
        if form.get("grant_type") != "client_credentials":
            raise Refused(400, "unsupported grant_type")
        client = options.oauth_clients.get(form.get("client_id", ""))
        if client is None or client.secret != form.get("client_secret") or form.get("audience") != options.audience:
            raise Refused(401, "unknown client, secret or audience")
        token = secrets.token_urlsafe(32)
        self._live[token] = (time.time() + options.token_seconds, client.tenant)
        self.issued += 1
        return {"access_token": token, "expires_in": int(options.token_seconds), "token_type": "Bearer"}

    def expire_all(self) -> None:
        self._live.clear()

    def tenant_of(self, token: str) -> str | None:
        expires_at, tenant = self._live.get(token, (0.0, None))
        if expires_at <= time.time():
            raise Refused(401, "Unauthorized")
        return tenant


def authorize(options: Options, tokens: Tokens, call: Call) -> None:
    """The raw key of the older document, or `Bearer` with a key or token; 401 unknown, 403 another tenant."""
    key = call.authorization.removeprefix("Bearer ")
    tenant = options.api_keys[key] if key in options.api_keys else tokens.tenant_of(key)
    if tenant not in (None, call.tenant) or (options.tenants is not None and call.tenant not in options.tenants):
        raise Refused(403, "Forbidden")


class Pace:
    """A token bucket for each tenant."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, limit: RateLimit, tenant: str) -> None:
        now = time.time()
        level, filled_at = self._buckets.get(tenant, (float(limit.burst), now))
        level = min(float(limit.burst), level + (now - filled_at) * limit.calls_per_second)
        if level < 1:
            self._buckets[tenant] = (level, now)
            wait_seconds = (1 - level) / limit.calls_per_second
            raise Refused(429, "Limit exceeded", _retry_after(limit, now, wait_seconds))
        self._buckets[tenant] = (level - 1, now)


def _retry_after(limit: RateLimit, now: float, wait_seconds: float) -> dict[str, str]:
    if limit.retry_after == "none":
        return {}
    if limit.retry_after == "date":
        return {"Retry-After": formatdate(math.ceil(now + wait_seconds), usegmt=True)}
    return {"Retry-After": str(max(1, math.ceil(wait_seconds)))}
