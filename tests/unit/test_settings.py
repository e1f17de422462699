"""The environment: what is required, what is optional, and the message for a mistake."""

from pathlib import Path

import pytest

from worker.errors import ConfigurationError
from worker.settings import Settings, load_local_settings, load_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing of ours is set but REDIS_URL."""
    for name in ("HOST", "PORT", "SENTRY_DSN", *(f"EXAMRELAY_{field.upper()}" for field in Settings.model_fields)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REDIS_URL", "redis://:pass-word@127.0.0.1:6379/0")
    return monkeypatch


def test_redis_url_is_all_that_must_be_said() -> None:
    settings = load_settings()
    assert (settings.port, settings.durability, settings.config) == (8000, "fsync", Path("examrelay.toml"))
    assert settings.sentry_dsn is None
    assert "pass-word" not in repr(settings)


def test_without_redis_url_it_is_said_what_to_do(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("REDIS_URL")
    with pytest.raises(ConfigurationError, match=r"^REDIS_URL is not set\. Point it at your Redis, or run"):
        load_settings()
    assert load_local_settings().redis_url is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "eighty", "PORT: Input should be a valid integer"),
        ("PORT", "65536", "PORT: Input should be less than or equal to 65535"),
        ("PORT", "-1", "PORT: Input should be greater than or equal to 0"),
        ("EXAMRELAY_LEASE_SECONDS", "0.5", "EXAMRELAY_LEASE_SECONDS: Input should be greater than or equal to 1"),
        ("EXAMRELAY_SWEEP_SECONDS", "often", "EXAMRELAY_SWEEP_SECONDS: Input should be a valid number"),
        ("EXAMRELAY_SWEEP_SECONDS", "nan", "EXAMRELAY_SWEEP_SECONDS: Input should be"),
        ("EXAMRELAY_MAX_BODY_BYTES", "99999999", "EXAMRELAY_MAX_BODY_BYTES: Input should be less than"),
        ("EXAMRELAY_REPLICAS", "6", "EXAMRELAY_REPLICAS: Input should be less than or equal to 5"),
        ("EXAMRELAY_DURABILITY", "maybe", "EXAMRELAY_DURABILITY: Input should be 'fsync', 'promised' or 'memory'"),
        ("EXAMRELAY_LOG_FORMAT", "xml", "EXAMRELAY_LOG_FORMAT: Input should be"),
        ("EXAMRELAY_METRICS_TOKEN", "fifteen letters", "EXAMRELAY_METRICS_TOKEN: under 16 characters, it can be guess"),
    ],
)
def test_a_mistake_is_one_line_with_the_variable(
    environment: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(said)


def test_two_mistakes_are_two_lines(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PORT", "eighty")
    environment.setenv("EXAMRELAY_REPLICAS", "many")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("dsn", "known"), [("", False), ("https://key@sentry.example.org/1", True)])
def test_an_empty_sentry_dsn_is_none(environment: pytest.MonkeyPatch, dsn: str, known: bool) -> None:
    environment.setenv("SENTRY_DSN", dsn)
    assert (load_settings().sentry_dsn is not None) is known


@pytest.mark.parametrize(("token", "known"), [("", False), ("a token of 16 or more", True)])
def test_an_empty_metrics_token_is_none(environment: pytest.MonkeyPatch, token: str, known: bool) -> None:
    environment.setenv("EXAMRELAY_METRICS_TOKEN", token)
    assert (load_settings().metrics_token is not None) is known


def test_before_there_is_a_redis_empty_counts_as_not_given(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REDIS_URL", "")
    environment.setenv("PORT", "")
    local = load_local_settings()
    assert (local.redis_url, local.port) == (None, None)


def test_settings_do_not_change(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


def test_the_tenants_file_is_the_one_that_the_environment_names(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("EXAMRELAY_CONFIG", str(tmp_path / "other.toml"))
    with pytest.raises(ConfigurationError, match=r"other\.toml: cannot be read"):
        assert load_settings().tenants
