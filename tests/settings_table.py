"""README's table of variables, as the settings' own models make it."""

from pydantic.fields import FieldInfo

from worker.cli.settings import fields_of, variable
from worker.settings import LocalSettings, Settings


def markdown() -> str:
    """What stands in README.md."""
    lines = [
        f"| `{variable(name, field)}` | {_default(field)} | {(field.description or '').replace('|', '/')} |"
        for model in (Settings, LocalSettings)
        for name, field in fields_of(model)
    ]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *lines, ""])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return f"`{field.default}`" if field.default not in (None, "") else ""
