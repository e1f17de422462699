"""Whether a delivery carries one of the credentials that a tenant lists, and what of them must not be recorded.

Constant-time: every one listed is compared, and compared whole. Knows no HTTP framework and keeps nothing.
"""

import base64
import binascii
import hmac
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from json import JSONDecoder
from typing import Any, Final, NamedTuple

from standardwebhooks import Webhook, WebhookVerificationError

from worker.tenants import BasicCredentials, BearerCredentials, BodyKeys, Credentials, HeaderCredentials
from worker.tenants import WebhookCredentials as Signed

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_BOM: Final = "\ufeff"
#: Of numbers only the end is wanted, and Python refuses to read very long ones.
_DECODER: Final = JSONDecoder(parse_int=len, parse_float=len)


def allowed(listed: Sequence[Credentials], headers: Mapping[str, str], body: bytes | None = None) -> bool:
    """Whether any of `listed` matches. `headers` by lower-case name, or in any case if the mapping does not care.

    Without a `body` (unpacked, as it was sent) those that look into it do not match.
    """
    scheme, _, told = headers.get("authorization", "").partition(" ")
    matches = [_matches(one, scheme.lower(), told.strip(), headers, body) for one in listed]
    return any(matches)


def look_into_body(listed: Sequence[Credentials]) -> bool:
    """Whether any of `listed` can only be checked once the body is there."""
    return any(isinstance(one, Signed | BodyKeys) for one in listed)


def without_keys(listed: Sequence[Credentials], body: bytes) -> bytes:
    """The body with an empty text in place of every credential that `listed` expects in it; else byte for byte as sent.

    So no key gets on the books, and a delivery stays the same event when its key is changed. What is no JSON object
    loses the keys wherever they stand.
    """
    kinds = [one for one in listed if isinstance(one, BodyKeys)]
    if not kinds:
        return body
    names = {name for one in kinds for name in one.keys}
    try:
        text = body.decode()
        found = [member for member in _members(text) if member.name in names]
    except (ValueError, RecursionError):
        for one in kinds:
            for secret in one.keys.values():
                body = body.replace(secret.get_secret_value().encode(), b"")
        return body
    for member in reversed(found):
        text = f'{text[: member.start]}""{text[member.end :]}'
    return text.encode()


def present(credential: Credentials, body: bytes) -> tuple[dict[str, str], bytes]:
    """What a sender with this credential sends: the headers that it adds, and the body with its keys filled in.

    Raises ValueError: the body must be text to be signed, or a JSON object to take keys, and is not.
    """
    match credential:
        case BearerCredentials():
            return {"Authorization": f"Bearer {credential.token.get_secret_value()}"}, body
        case BasicCredentials():
            told = f"{credential.user}:{credential.password.get_secret_value()}"
            return {"Authorization": f"Basic {base64.b64encode(told.encode()).decode()}"}, body
        case HeaderCredentials():
            return {credential.name: credential.value.get_secret_value()}, body
        case Signed():
            id, now = f"msg_{secrets.token_hex(12)}", datetime.now(UTC)
            signature = Webhook(credential.secret.get_secret_value()).sign(id, now, body.decode())
            stamp = str(int(now.timestamp()))
            return {"webhook-id": id, "webhook-timestamp": stamp, "webhook-signature": signature}, body
        case BodyKeys():
            keys = {name: secret.get_secret_value() for name, secret in credential.keys.items()}
            list(_members(body.decode()))  # raises for what is no object
            return {}, json.dumps(json.loads(body) | keys).encode()


def _matches(expected: Credentials, scheme: str, told: str, headers: Mapping[str, str], body: bytes | None) -> bool:
    match expected:
        case BearerCredentials():
            return scheme == "bearer" and _same(told, expected.token.get_secret_value())
        case BasicCredentials():
            wanted = f"{expected.user}:{expected.password.get_secret_value()}"
            return scheme == "basic" and hmac.compare_digest(_decoded(told), wanted.encode())
        case HeaderCredentials():
            return _same(headers.get(expected.name.lower(), ""), expected.value.get_secret_value())
        case Signed():
            return body is not None and _signed(expected, headers, body)
        case BodyKeys():
            return body is not None and _has_keys(expected, body)


def _same(told: str, wanted: str) -> bool:
    return hmac.compare_digest(told.encode("utf-8", "surrogatepass"), wanted.encode())


def _decoded(told: str) -> bytes:
    try:
        return base64.b64decode(told, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _signed(expected: Signed, headers: Mapping[str, str], body: bytes) -> bool:
    """By the reference library: five minutes of tolerance, several signatures allowed."""
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    try:
        Webhook(expected.secret.get_secret_value()).verify(
            body, {name: headers.get(name, "") for name in names}, json_parse=False
        )
    except (WebhookVerificationError, ValueError):
        return False
    return True


def _has_keys(expected: BodyKeys, body: bytes) -> bool:
    """Whether each key is there and each time it is there it is right."""
    try:
        members = list(_members(body.decode()))
    except (ValueError, RecursionError):
        members = []
    matches = [_says(members, name, secret.get_secret_value()) for name, secret in expected.keys.items()]
    return all(matches)


def _says(members: Sequence["_Member"], name: str, wanted: str) -> bool:
    values = [member.value for member in members if member.name == name]
    return bool(values) and all(isinstance(value, str) and _same(value, wanted) for value in values)


class _Member(NamedTuple):
    """A member of a JSON object, and where its value stands in the text."""

    name: str
    value: Any
    start: int
    end: int


def _members(text: str) -> Iterator[_Member]:
    """The members of the object that `text` is, in order, repeated ones too. Raises ValueError: it is none."""
    at = _after_space(text, _next(text, len(_BOM) if text.startswith(_BOM) else 0, "{"))
    going_on = text[at : at + 1] != "}"
    while going_on:
        name, at = _DECODER.raw_decode(text, _next(text, at, '"') - 1)
        start = _after_space(text, _next(text, at, ":"))
        value, end = _DECODER.raw_decode(text, start)
        yield _Member(name, value, start, end)
        at = _after_space(text, end)
        going_on = text[at : at + 1] == ","
        at += going_on
    if _after_space(text, _next(text, at, "}")) != len(text):
        raise ValueError("more than one object")


def _next(text: str, at: int, wanted: str) -> int:
    """Behind `wanted`, which must come next but for space."""
    at = _after_space(text, at)
    if text[at : at + 1] != wanted:
        raise ValueError(f"no {wanted}")
    return at + 1


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at
