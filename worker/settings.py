"""Settings: the only reader of the environment.

Required means no default. The README's table is generated from this model and tested against it.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.errors import ConfigurationError
from worker.tenants import Tenants, load_tenants

_ENV = SettingsConfigDict(frozen=True, env_prefix="EXAMRELAY_", extra="ignore", hide_input_in_errors=True)
_Model = TypeVar("_Model", bound=BaseSettings)


class Settings(BaseSettings):
    """What the environment says."""

    model_config = _ENV

    redis_url: SecretStr = Field(
        validation_alias="REDIS_URL", description="Redis 7.2+ or Valkey; `sentinel://` is accepted."
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8000, validation_alias="PORT", description="The receiver's port."
    )
    sentry_dsn: SecretStr | None = Field(
        None, validation_alias="SENTRY_DSN", description="Where bugs go; empty: nowhere."
    )
    config: Path = Field(Path("examrelay.toml"), description="The tenants file.")
    data: Path = Field(Path(".data"), description="Folder of `examrelay up`: the embedded Valkey's files and logs.")
    durability: Literal["fsync", "memory"] = Field(
        "fsync", description="`memory` accepts a Redis that may lose what it acknowledged."
    )
    replicas: Annotated[int, Field(ge=0, le=5)] = Field(
        0, description="Replicas that must have an event before it is acknowledged."
    )
    max_body_bytes: Annotated[int, Field(ge=1024, le=20 * 2**20)] = Field(
        2 * 2**20, description="Larger bodies are kept as a stub and buried."
    )
    lease_seconds: Annotated[float, Field(ge=1)] = Field(
        120, description="A claim that is not settled by then is free again."
    )
    sweep_seconds: Annotated[float, Field(ge=0.5, le=60)] = Field(3, description="Pause between sweeps.")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="`auto`: console on a terminal.")

    @model_validator(mode="after")
    def _dsn_may_be_empty(self) -> "Settings":
        if self.sentry_dsn is not None and not self.sentry_dsn.get_secret_value():
            object.__setattr__(self, "sentry_dsn", None)
        return self

    @cached_property
    def tenants(self) -> Tenants:
        """The tenants file, read once. Raises ConfigurationError."""
        return load_tenants(self.config, os.environ)


class LocalSettings(BaseSettings):
    """What `examrelay up`, and commands beside it, must know before there is a Redis. Empty counts as not given."""

    model_config = SettingsConfigDict(**_ENV, env_ignore_empty=True)

    redis_url: SecretStr | None = Field(None, validation_alias="REDIS_URL")
    port: Annotated[int, Field(ge=0, le=65535)] | None = Field(None, validation_alias="PORT")
    config: Path = Path("examrelay.toml")
    data: Path = Path(".data")
    sandbox: bool = Field(False, description="`1`: `examrelay up` brings a stand-in Rhythm, as with `--sandbox`.")


def load_settings() -> Settings:
    """Settings from the environment. Raises ConfigurationError with one line for each variable that is wrong."""
    return _load(Settings)


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
    return f"{variable}: {message}"
