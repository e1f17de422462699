"""`examrelay settings`: the table of variables, from the settings' own model."""

from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from worker.cli.output import show_json, show_table
from worker.settings import LocalSettings, Settings, load_local_settings, load_settings


def show(as_json: bool) -> None:
    """Name, value, default and meaning of each. Raises ConfigurationError when one is wrong."""
    found = rows(load_settings()) + rows(load_local_settings(), only={"sandbox"})
    if as_json:
        show_json({row["name"]: {key: row[key] for key in ("value", "default", "meaning")} for row in found})
    else:
        show_table(["variable", "value", "default", "meaning"], [tuple(row.values()) for row in found])


def markdown() -> str:
    """README's table of variables."""
    told = [*_fields(Settings), *_fields(LocalSettings, only={"sandbox"})]
    lines = [
        f"| `{variable(name, field)}` | {_default(field)} | {(field.description or '').replace('|', '/')} |"
        for name, field in told
    ]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *lines, ""])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return f"`{field.default}`" if field.default not in (None, "") else ""


def _fields(model: type[Settings | LocalSettings], only: set[str] | None = None) -> list[tuple[str, FieldInfo]]:
    return [(name, field) for name, field in model.model_fields.items() if only is None or name in only]


def rows(settings: Settings | LocalSettings, only: set[str] | None = None) -> list[dict[str, str]]:
    """A row a variable; secrets are masked."""
    return [
        {
            "name": variable(name, field),
            "value": _shown(getattr(settings, name)),
            "default": "required" if field.is_required() else _shown(field.default),
            "meaning": field.description or "",
        }
        for name, field in _fields(type(settings), only)
    ]


def variable(name: str, field: FieldInfo) -> str:
    """The environment variable of a setting."""
    prefix: Any = BaseSettings.model_config.get("env_prefix", "")
    prefix = Settings.model_config.get("env_prefix", prefix)
    return str(field.validation_alias) if field.validation_alias else f"{prefix}{name}".upper()


def _shown(value: object) -> str:
    if value is None:
        return ""
    return "********" if isinstance(value, SecretStr) else str(value)
