"""`examrelay settings`: the table of variables, from the settings' own model."""

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from worker.cli.filters import AsJson
from worker.cli.output import show_json, show_table
from worker.cli.services import join
from worker.settings import LocalSettings, Settings, load_local_settings, load_settings

#: Of `LocalSettings` the only one that `Settings` does not have.
_LOCAL_ONLY = "sandbox"


def settings(as_json: AsJson = False) -> None:
    """Name, value, default and meaning of each variable."""
    join()
    found = [*rows(load_settings()), *rows(load_local_settings())]
    if as_json:
        show_json({row["name"]: {name: row[name] for name in ("value", "default", "meaning")} for row in found})
    else:
        show_table(["variable", "value", "default", "meaning"], [tuple(row.values()) for row in found])


def markdown() -> str:
    """README's table of variables."""
    lines = [
        f"| `{_variable(name, field)}` | {_markdown_default(field)} | {(field.description or '').replace('|', '/')} |"
        for model in (Settings, LocalSettings)
        for name, field in _fields(model)
    ]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *lines, ""])


def _markdown_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return f"`{field.default}`" if field.default not in (None, "") else ""


def rows(settings: Settings | LocalSettings) -> list[dict[str, str]]:
    """A row for each variable; secrets are masked."""
    return [
        {
            "name": _variable(name, field),
            "value": _shown(getattr(settings, name)),
            "default": "required" if field.is_required() else _shown(field.default),
            "meaning": field.description or "",
        }
        for name, field in _fields(type(settings))
    ]


def _fields(model: type[Settings | LocalSettings]) -> list[tuple[str, FieldInfo]]:
    fields = model.model_fields.items()
    return [(name, field) for name, field in fields if model is Settings or name == _LOCAL_ONLY]


def _variable(name: str, field: FieldInfo) -> str:
    """The environment variable of a setting."""
    return str(field.validation_alias or f"{Settings.model_config['env_prefix']}{name}".upper())


def _shown(value: object) -> str:
    if value is None:
        return ""
    return "********" if isinstance(value, SecretStr) else str(value)
