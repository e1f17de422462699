"""The receiver's contract as OpenAPI 3.1: `openapi.json`, with the models and each platform's own paths filled in.

A test holds it against the routes and against every answer. `docs/sending.md` says what each answer means for a sender.
"""

import json
from importlib.resources import files
from typing import Any, Final

from schemas.event import Event, Receipt
from schemas.outcome import Source
from schemas.platform import Path, Platform, platform_of

#: The path that every platform has.
DELIVERIES: Final = "/v1/{tenant}/{source}"
_SCHEMA: Final = "#/components/schemas/{model}"


def paths_below() -> list[tuple[Platform, Path]]:
    """The paths of platforms that have more than `POST /v1/{tenant}/{source}`, each from its beginning."""
    return [
        (platform, path._replace(template=f"/v1/{{tenant}}/{source}/{path.template}"))
        for source, platform in ((source, platform_of(source)) for source in Source)
        for path in platform.paths
    ]


def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((files("worker.receiver") / "openapi.json").read_text())
    parts, paths = document["components"], document["paths"]
    parts["parameters"]["Source"]["schema"]["enum"] = [source.value for source in Source]
    for model in (Receipt, Event):
        schema = model.model_json_schema(ref_template=_SCHEMA, mode="serialization")
        parts["schemas"] |= schema.pop("$defs", {}) | {model.__name__: schema}
    deliver = paths[DELIVERIES]["post"]
    for platform, path in paths_below():
        named = [_parameter(*item) for item in platform.parameters.items() if f"{{{item[0]}}}" in path.template]
        paths[path.template] = {
            "parameters": [{"$ref": "#/components/parameters/Tenant"}, *named],
            path.method.lower(): deliver | {"summary": path.description},
        }
    return document


def _parameter(name: str, what: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": what, "schema": {"type": "string"}}


OPENAPI: Final = _document()
