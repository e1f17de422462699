"""The `Authorization` of each call to Rhythm: an API key, or a token from Rhythm's Auth0 domain.

Rhythm issues 1,000 tokens a month to all of an association's integrations together, each good for 24 hours. So a token
is shared by all processes, and a refused one is exchanged at most once in `REFRESH_SPACING`.
"""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timedelta
from typing import Annotated, Protocol
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from worker.errors import ConfigurationError
from worker.remote import ApiKey, OAuth
from worker.rhythm.failures import RhythmUnavailable

#: A token is not used in the last minutes of its life.
EXPIRY_MARGIN = timedelta(minutes=5)
#: A token younger than this that Rhythm refuses is not exchanged: another would be refused too. At most 180 a month.
REFRESH_SPACING = timedelta(hours=4)
#: Documented; counts where the token endpoint does not say.
_DEFAULT_LIFETIME_SECONDS = 24 * 3600

#: Posts a form to a URL and returns the 2xx answer's body; raises classified errors.
PostForm = Callable[[str, bytes], bytes]
Clock = Callable[[], datetime]


class Token(BaseModel):
    """A bearer token, as it is stored."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    value: SecretStr
    fetched_at: datetime
    #: When another is fetched; before it expires.
    stale_at: datetime

    @property
    def header(self) -> str:
        """The value of `Authorization`."""
        return f"Bearer {self.value.get_secret_value()}"


class TokenStore(Protocol):
    """Where tokens are shared between processes. Keys hold no secret."""

    def get(self, key: str) -> Token | None:
        """The token stored under `key`, or None."""
        ...

    def put(self, key: str, token: Token) -> None:
        """Store `token` under `key`, at least until it is stale."""
        ...

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Only one holder a key, in all processes that share the store. May raise TransientError instead of waiting."""
        ...


class KeySource:
    """An API key. Raises ConfigurationError for one that no header can hold.

    ---
    Rhythm, Exam Registrations API: Request samples (raw); Rhythm, authentication: "Bearer".
    """

    def __init__(self, credentials: ApiKey) -> None:
        key = credentials.key.get_secret_value()
        if not (key.isascii() and key.isprintable()):
            raise ConfigurationError("the Rhythm API key holds a character that a header cannot: copy it again")
        self._authorization = key if credentials.header == "raw" else f"Bearer {key}"

    def authorization(self) -> str:
        """The header's value."""
        return self._authorization

    def renewed(self, _refused: str) -> bool:
        """False: there is no other key."""
        return False


class _Grant(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    access_token: Annotated[str, Field(min_length=1, pattern=r"^[\x21-\x7e]+$")]
    expires_in: Annotated[float, Field(gt=0)] = _DEFAULT_LIFETIME_SECONDS


class OAuthSource:
    """Client credentials, exchanged for a token that is reused until shortly before it expires.

    ---
    Rhythm, authentication: client credentials at the association's Auth0 domain; concepts: token limits.
    """

    def __init__(self, credentials: OAuth, store: TokenStore, post: PostForm, now: Clock) -> None:
        self._store = store
        self._post = post
        self._now = now
        domain = credentials.domain.rstrip("/")
        self._url = f"{domain if '://' in domain else 'https://' + domain}/oauth/token"
        form = {
            "grant_type": "client_credentials",
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret.get_secret_value(),
            "audience": credentials.audience,
        }
        self._form = urlencode(form).encode()
        # The key covers the whole request, so a new secret does not find the old secret's token.
        self._key = hashlib.sha256(self._url.encode() + b"\n" + self._form).hexdigest()[:32]
        self._token: Token | None = None

    def authorization(self) -> str:
        """The header's value. Raises TransientError when no token can be had."""
        if self._token is None or self._stale(self._token):
            self._token = self._shared()
        return self._token.header

    def renewed(self, refused: str) -> bool:
        """Whether `authorization()` now gives another value than `refused`, to which Rhythm answered 401.

        Another process's newer token counts; else one is fetched, unless this one is younger than `REFRESH_SPACING`.
        """
        with self._store.lock(self._key):
            token = self._store.get(self._key)
            if token is None or token.header == refused:
                if token is not None and self._now() < token.fetched_at + REFRESH_SPACING:
                    return False
                token = self._fetch()
            self._token = token
        return True

    def _shared(self) -> Token:
        """The token that all processes use; fetched by the first that needs it while the others wait."""
        token = self._store.get(self._key)
        if token is not None and not self._stale(token):
            return token
        with self._store.lock(self._key):
            token = self._store.get(self._key)
            return self._fetch() if token is None or self._stale(token) else token

    def _stale(self, token: Token) -> bool:
        return self._now() >= token.stale_at

    def _fetch(self) -> Token:
        grant = _read_grant(self._post(self._url, self._form))
        lifetime = timedelta(seconds=min(grant.expires_in, _DEFAULT_LIFETIME_SECONDS))
        now = self._now()
        token = Token(
            value=SecretStr(grant.access_token),
            fetched_at=now,
            stale_at=now + max(lifetime - EXPIRY_MARGIN, lifetime / 2),
        )
        self._store.put(self._key, token)
        return token


def _read_grant(content: bytes) -> _Grant:
    with suppress(ValidationError):
        return _Grant.model_validate_json(content)
    raise RhythmUnavailable("the token endpoint's answer holds no token")
