"""RFC 6902 patches of a registration, and what its members may be (Exam Registrations document)."""

import copy
from typing import Any, Literal

import jsonpatch
from jsonpointer import JsonPointerException
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from sandbox.calls import Refused
from sandbox.options import Options
from sandbox.registrations import Registration

#: Rhythm's own; a client cannot change them.
_PROTECTED = ("id", "sys_version", "sys_created_at")
#: Where a patch's string value is read as JSON when values are strings (vendor-behaviour 4.5).
_NOT_TEXT = {
    "score",
    "sys_version",
    "custom_field_values",
    "numeric_value",
    "boolean_value",
    "list_value",
    "table_value",
}


class _Changed(BaseModel, extra="allow", strict=True):
    """What a patch may make of the members that are written here; any other may be anything."""

    status: Literal["draft", "registered", "passed", "failed", "no show", "cancelled"] = "draft"
    score: float = 0
    exam_date: str = ""
    custom_field_values: list[dict[str, Any]] = []


class TestFailed(Refused):
    """A `test` directive does not hold: the guard, not a mistake in the patch."""


def patched(registration: Registration, directives: Any, options: Options) -> Registration:
    """The registration after all directives. Raises Refused; TestFailed for a `test` that does not hold."""
    after = _applied(registration, directives, options)
    if any(after.get(name) != registration.get(name) for name in _PROTECTED):
        raise Refused(400, f"{', '.join(_PROTECTED)} cannot be changed")
    changed = {name: value for name, value in after.items() if name not in registration or registration[name] != value}
    try:
        _Changed.model_validate(changed)
    except ValidationError as failure:
        raise Refused(400, f"{failure.errors()[0]['loc'][0]} is not valid") from failure
    if options.known_exam_ids and "exam_id" in changed and changed["exam_id"] not in options.known_exam_ids:
        raise Refused(409, "exam_id refers to a non-existent object")
    return after


def _applied(registration: Registration, directives: Any, options: Options) -> Registration:
    if not isinstance(directives, list):
        raise Refused(400, "the patch is not an array")
    own = {name: copy.deepcopy(value) for name, value in registration.items() if isinstance(value, list)}
    after: Any = registration | own
    try:
        for given in directives:  # one by one: JsonPatch itself would build each operation twice
            directive = _typed(given, options.values)
            after = jsonpatch.JsonPatch.operations[directive["op"]](directive).apply(after)
    except jsonpatch.JsonPatchTestFailed as failure:
        raise TestFailed(options.failed_test_status, "a test directive failed") from failure
    except (jsonpatch.JsonPatchException, JsonPointerException, TypeError, ValueError, LookupError) as failure:
        raise Refused(400, "the patch cannot be applied") from failure
    if not isinstance(after, dict):
        raise Refused(400, "the patch leaves no object")
    return after


def _typed(directive: dict[str, Any], values: str) -> dict[str, Any]:
    """The directive with its value as JSON, by the option `values`."""
    if values == "native" or "value" not in directive:
        return directive
    value, path = directive["value"], directive["path"].split("/")
    if not isinstance(value, str):
        if values == "strict_string":
            raise ValueError("the value is not a string")
        return directive
    is_json = path[-1] in _NOT_TEXT or path[1:-1] == ["custom_field_values"]
    return directive | {"value": from_json(value)} if is_json else directive
