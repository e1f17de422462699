"""The receiver's contract as OpenAPI 3.1: `openapi.json`, with the models and each platform's own paths filled in.

A test holds it against the routes and against every answer. `docs/sending.md` says what each answer means for a sender.
"""

import json
from importlib.resources import files
from typing import Any, Final, NamedTuple

from schemas.event import Event, Receipt
from schemas.outcome import Source

#: The path that every platform has.
DELIVERIES: Final = "/v1/{tenant}/{source}"
_SCHEMA: Final = "#/components/schemas/{model}"


class Path(NamedTuple):
    """A path below a source."""

    method: str
    template: str
    summary: str


#: Interim, until a platform's row has them.
PATHS: Final = {
    Source.DRILLSTER: (
        Path("POST", "{event_type}", "Deliver a Drillster event whose type is in the URL."),
        Path("PUT", "{event_type}/{event_id}", "Deliver a Drillster event whose type and id are in the URL."),
    )
}
PARAMETERS: Final = {
    "event_type": "Drillster's event type, where the body does not say it.",
    "event_id": "Drillster's event id, percent-encoded, where the body does not say it.",
}


def paths_below() -> list[Path]:
    """The paths of platforms that have more than `POST /v1/{tenant}/{source}`."""
    return [
        path._replace(template=f"/v1/{{tenant}}/{source}/{path.template}")
        for source, paths in PATHS.items()
        for path in paths
    ]


def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((files("worker.receiver") / "openapi.json").read_text())
    parts, paths = document["components"], document["paths"]
    parts["parameters"]["Source"]["schema"]["enum"] = [source.value for source in Source]
    for model in (Receipt, Event):
        schema = model.model_json_schema(ref_template=_SCHEMA, mode="serialization")
        parts["schemas"] |= schema.pop("$defs", {}) | {model.__name__: schema}
    deliver = paths[DELIVERIES]["post"]
    for method, template, summary in paths_below():
        named = [_parameter(name) for name in PARAMETERS if f"{{{name}}}" in template]
        paths[template] = {
            "parameters": [{"$ref": "#/components/parameters/Tenant"}, *named],
            method.lower(): deliver | {"summary": summary},
        }
    return document


def _parameter(name: str) -> dict[str, Any]:
    return {
        "name": name, "in": "path", "required": True, "description": PARAMETERS[name], "schema": {"type": "string"},
    }  # fmt: skip


OPENAPI: Final = _document()
