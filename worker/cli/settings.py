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


def rows(settings: Settings | LocalSettings) -> list[dict[str, str]]:
    """A row for each variable; secrets are masked."""
    return [
        {
            "name": variable(name, field),
            "value": _shown(getattr(settings, name)),
            "default": "required" if field.is_required() else _shown(field.default),
            "meaning": field.description or "",
        }
        for name, field in fields_of(type(settings))
    ]


def fields_of(model: type[Settings | LocalSettings]) -> list[tuple[str, FieldInfo]]:
    """The settings by their names, each once."""
    fields = model.model_fields.items()
    return [(name, field) for name, field in fields if model is Settings or name == _LOCAL_ONLY]


def variable(name: str, field: FieldInfo) -> str:
    """The environment variable of a setting."""
    return str(field.validation_alias or f"{Settings.model_config['env_prefix']}{name}".upper())


def _shown(value: object) -> str:
    if value is None:
        return ""
    return "********" if isinstance(value, SecretStr) else str(value)
