"""Whether a delivery carries one of a tenant's credentials, and the body without the credentials in it.

Secrets are compared in constant time. Knows no HTTP framework and keeps nothing.
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook

from worker.errors import Unacceptable
from worker.receiver.body_keys import Member, blanked, find
from worker.tenants import BasicCredentials, BearerCredentials, BodyKeys, Credentials, HeaderCredentials
from worker.tenants import WebhookCredentials as Signed

#: How old, or how far in the future, a signature may be (standardwebhooks.com; the reference libraries have the same).
_TOLERANCE_SECONDS: Final = 300
#: Signatures in one header that are looked at. A sender that changes its secret sends two.
_CLAIMS_AT_MOST: Final = 16


def allowed(listed: Sequence[Credentials], headers: Mapping[str, str]) -> bool:
    """Whether the headers alone carry one of `listed`. Their names are in lower case, or their case does not matter.

    Credentials that need the body never match here: see `Proof`.
    """
    scheme, _, value = headers.get("authorization", "").partition(" ")
    scheme, value = scheme.lower(), value.strip()
    decoded = _decoded(value) if scheme == "basic" else b""
    matches = [_matches(expected, scheme, value, decoded, headers) for expected in listed]
    return any(matches)


class Proof:
    """Whether a delivery carries one of the listed credentials, as far as it has been read. For one delivery."""

    def __init__(self, listed: Sequence[Credentials], headers: Mapping[str, str]) -> None:
        self.accepted = allowed(listed, headers)
        self._keys = [one for one in listed if isinstance(one, BodyKeys)]
        self._signatures = [] if self.accepted else _signatures(listed, headers)

    @property
    def possible(self) -> bool:
        """Whether it is accepted, or the rest of the body may still change that."""
        return self.accepted or bool(self._signatures) or bool(self._keys)

    @property
    def signed(self) -> bool:
        """Whether the end of the body decides."""
        return bool(self._signatures)

    @property
    def searches(self) -> bool:
        """Whether `open` searches the body, which takes some 20 ns a byte."""
        return bool(self._keys)

    def update(self, piece: bytes) -> None:
        """Take the next piece of the unpacked body."""
        for signature in self._signatures:
            signature.update(piece)

    def open(self, beginning: bytes, whole: bool = False) -> bytes:
        """The body, or the part that is searched, without the keys in it. Accepts the delivery if they are right.

        `whole`: the body has ended, so a signature can be judged as well.
        """
        if not self._keys:
            return beginning
        members, is_object = find(beginning, _names(self._keys))
        self.accepted = self.accepted or _has_keys(self._keys, members)
        if not (self.end() if whole else self.accepted or self._signatures):
            return b""  # it is refused. Taking the keys out would take longer where a guess is nearly right
        return _without(self._keys, beginning, members, is_object)

    def end(self) -> bool:
        """Whether the delivery is accepted, now that its body is complete."""
        right = [signature.is_right() for signature in self._signatures]
        self.accepted = self.accepted or any(right)
        return self.accepted


def without_keys(listed: Sequence[Credentials], body: bytes) -> bytes:
    """The body with empty text in place of every credential that `listed` expects in it, else byte for byte.

    No key gets into the ledger, and a delivery stays the same event when its key is changed. A body that is not a JSON
    object loses the keys wherever they stand.
    """
    kinds = [one for one in listed if isinstance(one, BodyKeys)]
    return _without(kinds, body, *find(body, _names(kinds))) if kinds else body


def present(credential: Credentials, body: bytes) -> tuple[dict[str, str], bytes]:
    """What a sender with this credential sends: the headers that it adds, and the body with its keys filled in.

    Raises ValueError: the body must be text to be signed, or a JSON object to take keys, and is not.
    """
    match credential:
        case BearerCredentials():
            return {"Authorization": f"Bearer {credential.token.get_secret_value()}"}, body
        case BasicCredentials():
            return {"Authorization": f"Basic {base64.b64encode(_login(credential)).decode()}"}, body
        case HeaderCredentials():
            return {credential.name: credential.value.get_secret_value()}, body
        case Signed():
            id, now = f"msg_{secrets.token_hex(12)}", datetime.now(UTC)
            signature = Webhook(credential.secret.get_secret_value()).sign(id, now, body.decode())
            stamp = str(int(now.timestamp()))
            return {"webhook-id": id, "webhook-timestamp": stamp, "webhook-signature": signature}, body
        case BodyKeys():
            keys = {name: secret.get_secret_value() for name, secret in credential.keys.items()}
            inside = json.loads(body)
            if not isinstance(inside, dict):
                raise Unacceptable("the body is not a JSON object")
            return {}, json.dumps(inside | keys).encode()


def _login(credential: BasicCredentials) -> bytes:
    return f"{credential.user}:{credential.password.get_secret_value()}".encode()


def _matches(expected: Credentials, scheme: str, value: str, decoded: bytes, headers: Mapping[str, str]) -> bool:
    match expected:
        case BearerCredentials():
            return scheme == "bearer" and _same(value, expected.token.get_secret_value())
        case BasicCredentials():
            return scheme == "basic" and hmac.compare_digest(decoded, _login(expected))
        case HeaderCredentials():
            return _same(headers.get(expected.name.lower(), ""), expected.value.get_secret_value())
    return False


def _same(value: str, wanted: str) -> bool:
    return hmac.compare_digest(value.encode("utf-8", "surrogatepass"), wanted.encode())


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:  # not ASCII, or not base64
        return b""


class _Signature:
    """One secret, and the signatures that the headers claim were made with it.

    A signature is `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body` (standardwebhooks.com, "Signature scheme").
    The body is bytes; the reference library verifies text only.
    """

    def __init__(self, expected: Signed, id: str, stamp: str, claimed: str) -> None:
        secret = base64.b64decode(expected.secret.get_secret_value().removeprefix("whsec_") + "==")
        self._hmac = hmac.new(secret, f"{id}.{stamp}.".encode("latin-1", "replace"), hashlib.sha256)
        claims = [one.removeprefix("v1,") for one in claimed.split(" ") if one.startswith("v1,")]
        self._claimed = claims[:_CLAIMS_AT_MOST]

    def update(self, piece: bytes) -> None:
        self._hmac.update(piece)

    def is_right(self) -> bool:
        digest = self._hmac.digest()
        matches = [hmac.compare_digest(digest, _decoded(one)) for one in self._claimed]
        return any(matches)


def _signatures(listed: Sequence[Credentials], headers: Mapping[str, str]) -> list[_Signature]:
    """One for each listed signing secret; none when the headers hold no recent signature."""
    expected = [one for one in listed if isinstance(one, Signed)]
    if not expected:
        return []
    id, stamp, claimed = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not id or not _is_recent(stamp) or "v1," not in claimed:
        return []
    return [_Signature(one, id, stamp, claimed) for one in expected]


def _is_recent(stamp: str) -> bool:
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) < 12):
        return False
    return abs(datetime.now(UTC).timestamp() - int(stamp)) <= _TOLERANCE_SECONDS


def _names(kinds: Iterable[BodyKeys]) -> set[str]:
    return {name for one in kinds for name in one.keys}


def _has_keys(kinds: Iterable[BodyKeys], members: Collection[Member]) -> bool:
    """Whether the body has every key of one of `kinds`, and no wrong value for any of them."""
    values: dict[str, set[bytes]] = {}
    for member in members:
        values.setdefault(json.loads(member.name), set()).add(member.value)
    matches = [_are_right(one, values) for one in kinds]
    return any(matches)


def _are_right(expected: BodyKeys, values: Mapping[str, Collection[bytes]]) -> bool:
    """Every key is compared: to stop at the first wrong one would tell which of them are right."""
    right = [_all_right(values.get(name, ()), secret.get_secret_value()) for name, secret in expected.keys.items()]
    return min(right)  # unlike `all`, it looks at each


def _all_right(values: Collection[bytes], wanted: str) -> bool:
    return min([_is_right(value, wanted) for value in values], default=False)


def _is_right(value: bytes, wanted: str) -> bool:
    """Whether a JSON string means `wanted`. With every character escaped it is six times as long."""
    if not value.startswith(b'"') or len(value) > 6 * len(wanted.encode()) + 2:
        return False
    try:
        return _same(json.loads(value), wanted)
    except ValueError:
        return False


def _without(kinds: Collection[BodyKeys], body: bytes, members: Collection[Member], is_object: bool) -> bytes:
    body = blanked(body, members)
    if not is_object:
        for secret in (secret for one in kinds for secret in one.keys.values()):
            body = body.replace(secret.get_secret_value().encode(), b"")
    return body
