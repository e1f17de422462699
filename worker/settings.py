"""Settings: the only reader of the environment.

Required means no default. The README's table is generated from this model and tested against it.
"""

import base64
import os
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.errors import ConfigurationError
from worker.redis_address import RedisAddress, read_address
from worker.secret import EASY_BELOW
from worker.tenants import Tenants, load_tenants

_ENV = SettingsConfigDict(frozen=True, env_prefix="EXAMRELAY_", extra="ignore", hide_input_in_errors=True)
_KEY_BYTES: Final = 32
_Model = TypeVar("_Model", bound=BaseSettings)


def _read(url: SecretStr) -> SecretStr:
    read_address(url.get_secret_value())
    return url


_RedisUrl = Annotated[SecretStr, AfterValidator(_read)]


class Settings(BaseSettings):
    """What the environment says."""

    model_config = _ENV

    redis_url: _RedisUrl = Field(
        validation_alias="REDIS_URL",
        description="Redis 7.2+ or Valkey, no cluster, or its sentinels; `rediss://` verifies certificates.",
    )
    host: str = Field(
        "", validation_alias="HOST", description="The receiver's address. Empty: all of IPv4; `::`: IPv6 as well."
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8000, validation_alias="PORT", description="The receiver's port."
    )
    sentry_dsn: SecretStr | None = Field(
        None, validation_alias="SENTRY_DSN", description="Sentry's address for bug reports. Empty: none."
    )
    sentry_environment: str = Field(
        "production", validation_alias="SENTRY_ENVIRONMENT", description="What Sentry calls this deployment."
    )
    sentry_traces_sample_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        0,
        validation_alias="SENTRY_TRACES_SAMPLE_RATE",
        description="Share of results whose way from the receiver to Rhythm is sent to Sentry as a trace.",
    )
    config: Path = Field(Path("examrelay.toml"), description="The tenants file.")
    data: Path = Field(Path(".data"), description="Folder of `examrelay up`: the embedded Valkey's files and logs.")
    durability: Literal["fsync", "promised", "memory"] = Field(
        "fsync",
        description="`promised`: a managed Redis does not say that it syncs each write, its provider does. `memory` "
        "accepts a Redis that may lose acknowledged results.",
    )
    payload_keys: SecretStr | None = Field(
        None,
        description="Keys for personal data in Redis (AES-256-GCM), separated by commas, each 32 bytes in base64: the "
        "first encrypts, all decrypt. Empty: not encrypted.",
    )
    index_key: SecretStr | None = Field(
        None,
        description="Key of the names made from candidate data (HMAC), 32 bytes in base64. Never change it. Empty: "
        "made at the first start and stored in Redis.",
    )
    replicas: Annotated[int, Field(ge=0, le=5)] = Field(
        0, description="How many replicas must have an event before it is acknowledged."
    )
    max_body_bytes: Annotated[int, Field(ge=1024, le=20 * 2**20)] = Field(
        2 * 2**20, description="Of a larger body only its beginning is stored, and its event is dead."
    )
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        75, description="The receiver closes a connection that is idle for this long. Set it longer than your proxy's."
    )
    payload_days: Annotated[int, Field(ge=0, le=400)] = Field(
        30, description="A payload is deleted so many days after its event is final."
    )
    stopped_days: Annotated[int, Field(ge=1, le=400)] | None = Field(
        None, description="Held and dead events are discarded so many days after their receipt. Empty: never."
    )
    stray_days: Annotated[int, Field(ge=1, le=400)] = Field(
        90,
        description="Strays, queue entries that are no messages, and notes of refusals are deleted after so many days.",
    )
    lease_seconds: Annotated[float, Field(ge=1)] = Field(
        120, description="Events whose task has not finished by then are due again."
    )
    metrics_token: SecretStr | None = Field(
        None,
        description="16 characters or more: `/metrics`, and all of `/readyz` but its status, want `Authorization: "
        "Bearer` with it. Empty: everybody may read them.",
    )
    console_host: str = Field("127.0.0.1", description="The console's address. Elsewhere, put it behind HTTPS.")
    console_port: Annotated[int, Field(ge=0, le=65535)] = Field(8001, description="The console's port.")
    sweep_seconds: Annotated[float, Field(ge=0.5, le=60)] = Field(3, description="Pause between sweeps.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: console on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning"] = Field(
        "info", description="`debug`: a line for each result that went through, too."
    )

    @field_validator("sentry_dsn", "payload_keys", "index_key", "metrics_token", "stopped_days", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @field_validator("payload_keys", "index_key")
    @classmethod
    def _are_keys(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if len(_keys(value)) > 1 and info.field_name == "index_key":
            raise ValueError("is one key, not several")
        return value

    @field_validator("metrics_token")
    @classmethod
    def _is_hard_to_guess(cls, value: SecretStr | None) -> SecretStr | None:
        if value and len(value.get_secret_value()) < EASY_BELOW:
            raise ValueError(f"under {EASY_BELOW} characters, it can be guessed: `openssl rand -hex 32` makes one")
        return value

    @cached_property
    def redis(self) -> RedisAddress:
        """Where Redis is, as every part reads it."""
        return read_address(self.redis_url.get_secret_value())

    @property
    def sealing_keys(self) -> tuple[bytes, ...]:
        """The keys that personal data is sealed under, the first, and opened with."""
        return _keys(self.payload_keys)

    @property
    def identity_key(self) -> bytes | None:
        """The key of names made of candidate data, when it is given."""
        return next(iter(_keys(self.index_key)), None)

    @cached_property
    def tenants(self) -> Tenants:
        """The tenants file, read once. Raises ConfigurationError."""
        return load_tenants(self.config, os.environ)


class LocalSettings(BaseSettings):
    """What `examrelay up`, and commands beside it, must know before there is a Redis. Empty counts as not given."""

    model_config = SettingsConfigDict(**_ENV, env_ignore_empty=True)

    redis_url: _RedisUrl | None = Field(None, validation_alias="REDIS_URL")
    host: str = Field("", validation_alias="HOST")
    port: Annotated[int, Field(ge=0, le=65535)] | None = Field(None, validation_alias="PORT")
    console_host: str = "127.0.0.1"
    console_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    config: Path = Path("examrelay.toml")
    data: Path = Path(".data")
    sandbox: bool = Field(
        False, description="`1`: `examrelay up` also starts a stand-in for Rhythm, as with `--sandbox`."
    )


def _keys(value: SecretStr | None) -> tuple[bytes, ...]:
    """Keys in base64, separated by commas. Raises ValueError that tells nothing of them."""
    keys: list[bytes] = []
    for place, told in enumerate(value.get_secret_value().split(",") if value else (), 1):
        try:
            keys.append(base64.b64decode(told.strip(), validate=True))
        except ValueError:
            keys.append(b"")
        if len(keys[-1]) != _KEY_BYTES:
            raise ValueError(
                f"key {place} is not {_KEY_BYTES} bytes in base64 (44 characters). `openssl rand -base64 32` makes "
                "one; several are separated by commas."
            )
    return tuple(keys)


def load_settings() -> Settings:
    """Settings from the environment. Raises ConfigurationError with one line for each variable that is wrong."""
    return _load(Settings)


def load_tenants_file() -> tuple[Path, Tenants]:
    """The tenants file alone, and where it is. Raises ConfigurationError."""
    local = load_local_settings()
    return local.config, load_tenants(local.config, os.environ)


def load_local_settings() -> LocalSettings:
    """As `load_settings`, of what is known without a Redis."""
    return _load(LocalSettings)


def _load(model: type[_Model]) -> _Model:
    try:
        return model()
    except ValidationError as error:
        raise ConfigurationError(
            "\n".join(_complaint(problem["loc"], problem["msg"]) for problem in error.errors())
        ) from None


def _complaint(loc: tuple[int | str, ...], message: str) -> str:
    name = str(loc[0]) if loc else "environment"
    variable = name if name.isupper() else f"EXAMRELAY_{name.upper()}"
    if variable == "REDIS_URL" and message == "Field required":
        return "REDIS_URL is not set. Point it at your Redis, or run `examrelay up`, which brings its own."
    if variable == "REDIS_URL":
        return f"REDIS_URL {message.removeprefix('Value error, ')}"
    return f"{variable}: {message.removeprefix('Value error, ')}"


@cache
def running_version() -> str:
    """The version of examrelay that this process runs."""
    try:
        return version("examrelay")
    except PackageNotFoundError:
        return "unknown"


def environment() -> dict[str, str]:
    """The variables of this process, for its children; and who it runs for."""
    return dict(os.environ)


def take_variables(variables: Mapping[str, str]) -> None:
    """Variables of a running `examrelay up`: settings that are loaded later are read from them."""
    os.environ.update(variables)


def remove_variables(names: Iterable[str]) -> None:
    """Variables that a library would prefer to what we give it."""
    for name in names:
        os.environ.pop(name, None)
