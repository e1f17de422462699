"""The tenants file's section `rhythm`: where a tenant's Rhythm is, the way there, how to speak to it, and how fast."""

import re
import ssl
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo

from worker.secret import Secret, read_secret
from worker.sections import Section, Text


class ApiKey(Section):
    """A Rhythm API key, sent as `Bearer KEY` or unchanged, as Rhythm's older documents show it."""

    kind: Literal["api_key"]
    key: Secret
    header: Literal["bearer", "raw"] = "bearer"


class OAuth(Section):
    """Rhythm's client credentials (Console > API Keys), exchanged at its Auth0 domain."""

    kind: Literal["oauth"]
    domain: Text
    client_id: Text
    client_secret: Secret
    audience: Text = "https://api.rhythmsoftware.com"


_LOOPBACK: Final = {("http", host) for host in ("127.0.0.1", "localhost", "::1")}


def _https_or_loopback(value: str) -> str:
    url = urlsplit(value)
    if not url.hostname or (url.scheme != "https" and (url.scheme, url.hostname) not in _LOOPBACK):
        raise ValueError("must start with https:// (http:// only on this machine)")
    return value.rstrip("/")


_PROXY: Final = re.compile(r"http://(?:[^\s/?#@]+@)?(?:[a-zA-Z0-9._-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")


def _read_proxy(value: object, info: ValidationInfo) -> str:
    """A proxy's address, read like a secret where it may have a password. Messages do not quote it."""
    url = value if isinstance(value, str) and "://" in value and "@" not in value else read_secret(value, info)
    found = _PROXY.fullmatch(url.removesuffix("/"))
    if not found or not 0 < int(found[1]) < 2**16:
        raise ValueError("must be http://host:port; with a login, env:NAME of http://user:password@host:port, encoded")
    return found[0]


def _authorities(path: str) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(f"{path} holds no certificates in PEM") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    return path


class RhythmConnection(Section):
    """Where a tenant's Rhythm is, how to speak to it, and how fast."""

    url: Annotated[Text, AfterValidator(_https_or_loopback)]
    tenant_id: Text
    credentials: Annotated[ApiKey | OAuth, Field(discriminator="kind")]
    #: The HTTP proxy between us and it, for all that is https:// (the OAuth domain too).
    proxy: Annotated[SecretStr, BeforeValidator(_read_proxy)] | None = None
    #: Certificates in PEM: who signs for Rhythm and the OAuth domain, in place of the public authorities.
    ca_file: Annotated[Text, AfterValidator(_authorities)] | None = None
    #: One deadline for a whole call, connecting included.
    timeout_seconds: Annotated[float, Field(gt=0, le=30)] = 15
    #: At least one call in five seconds: a task waits for its turn for at most ten seconds.
    calls_per_second: Annotated[float, Field(ge=0.2)] | None = None
    #: Sync tasks of this tenant at once. Carries no order.
    concurrency: Annotated[int, Field(ge=1, le=64)] = 2
    #: `none` gives up the guard against a write that comes late (README).
    guard: Literal["sys_version", "none"] = "sys_version"
    #: Rhythm documents a patch's value as a string, and its record's score as a number.
    patch_values: Literal["native", "string"] = "native"
    #: Whether batch operations carry an empty `object`, which a sibling API documents as required.
    batch_object: bool = False
