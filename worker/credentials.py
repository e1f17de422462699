"""Whether a request carries one of the credentials that a tenant lists. Constant-time; knows no HTTP framework."""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence

from worker.tenants import BasicCredentials, BearerCredentials


def allowed(listed: Sequence[BasicCredentials | BearerCredentials], headers: Mapping[str, str]) -> bool:
    """Whether the `Authorization` header matches any of `listed`. Every one is compared, so time tells nothing."""
    scheme, _, told = headers.get("authorization", "").partition(" ")
    matches = [_matches(one, scheme.lower(), told.strip()) for one in listed]
    return any(matches)


def _matches(expected: BasicCredentials | BearerCredentials, scheme: str, told: str) -> bool:
    if scheme != expected.kind:
        return False
    match expected:
        case BearerCredentials():
            return hmac.compare_digest(told.encode(), expected.token.get_secret_value().encode())
        case BasicCredentials():
            wanted = f"{expected.user}:{expected.password.get_secret_value()}"
            return hmac.compare_digest(_decoded(told), wanted.encode())


def _decoded(told: str) -> bytes:
    try:
        return base64.b64decode(told, validate=True)
    except (binascii.Error, ValueError):
        return b""
