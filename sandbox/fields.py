"""What a registration may hold (Exam Registrations document), and RFC 6902 patches of it.

Pure: takes registrations and gives new ones, stores nothing. A registration is never changed in place.
"""

import copy
from collections.abc import Iterable
from typing import Any

import jsonpatch
from jsonpointer import JsonPointerException

from sandbox.calls import Refused, decode
from sandbox.options import Options

Registration = dict[str, Any]

REQUIRED = {"name", "exam_id", "exam_offering_id", "student_id", "date"}
#: Rhythm's own; a client cannot change them.
PROTECTED = {"id", "sys_version", "sys_created_at"}
_ENUMS = {
    "status": {"draft", "registered", "passed", "failed", "no show", "cancelled"},
    "location": {"training location", "testing facility", "none"},
    "training_provider_billing_status": {"exempt from billing", "not yet billed", "billing hold", "billed"},
}
_NUMBERS = {"number", "score", "sys_bulk_load_record_no", "sys_snapshot_base_version"}
_BOOLEANS = {"retest", "sys_locked", "sys_has_files_in_s3"}
_LISTS = {"custom_field_values", "notices", "sys_calculated_field_errors"}
_TEXTS = {
    "first_name", "last_name", "name", "email_address", "city", "state", "country", "job_title", "application_id",
    "process_id", "exam_id", "exam_offering_id", "student_id", "cancellation_date", "testing_facility_id", "notes",
    "training_provider_id", "training_location_id", "additional_location_info", "date", "exam_date", "order_id",
    "scoring_report_uri", "training_provider_billing_name", "training_provider_billing_date", "order_line_item_id",
    "training_provider_billing_invoice_id", "training_provider_billing_invoice_line_item_id", "sys_directive",
    "course_registration_id", "sys_external_id",
}  # fmt: skip
#: Where a patch's string value is read as JSON when values are strings (vendor-behaviour 4.5).
_JSON = _NUMBERS | _BOOLEANS | _LISTS | {"sys_version", "numeric_value", "boolean_value", "list_value", "table_value"}


_OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")


class TestFailed(Refused):
    """A `test` directive does not hold: the guard, not a mistake in the patch."""


def check(registration: Registration, options: Options, names: Iterable[str] | None = None) -> None:
    """Refuse a missing or wrong member with 400, an unknown exam or student with 409; only `names`, if given."""
    missing = REQUIRED - registration.keys()
    if missing:
        raise Refused(400, f"required: {', '.join(sorted(missing))}")
    known = {"exam_id": options.known_exam_ids, "student_id": options.known_student_ids}
    for name in registration.keys() if names is None else registration.keys() & names:
        if not _fits(name, registration[name]):
            raise Refused(400, f"{name} is not valid")
        if registration[name] not in (known.get(name) or (registration[name],)):
            raise Refused(409, f"{name} refers to a non-existent object")


def _fits(name: str, value: Any) -> bool:
    if name in _ENUMS:
        return isinstance(value, str) and value in _ENUMS[name]
    if name in _NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if name in _LISTS:
        return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
    return isinstance(value, bool if name in _BOOLEANS else str if name in _TEXTS else object)


def patched(registration: Registration, directives: Any, options: Options) -> Registration:
    """The registration after all directives. Raises Refused; TestFailed for a `test` that does not hold."""
    if not isinstance(directives, list):
        raise Refused(400, "the patch is not an array")
    typed = [_typed(directive, options) for directive in directives]
    touched = {name for directive in typed if directive["op"] != "test" for name in _members(directive)}
    # Only what is touched is copied deeply: a batch of 100 would otherwise spend most of its time on copies.
    own = registration | {name: copy.deepcopy(registration[name]) for name in touched & registration.keys()}
    after = _apply(typed, own, options)
    if any(after.get(name) != registration.get(name) for name in PROTECTED):
        raise Refused(400, f"{', '.join(sorted(PROTECTED))} cannot be changed")
    check(after, options, None if "" in touched else touched)
    return after


def _apply(directives: list[dict[str, Any]], registration: Registration, options: Options) -> Registration:
    after: Any = registration
    try:
        for directive in directives:  # one by one: JsonPatch itself would build each operation twice
            after = jsonpatch.JsonPatch.operations[directive["op"]](directive).apply(after)
    except jsonpatch.JsonPatchTestFailed as failure:
        raise TestFailed(options.failed_test_status, "a test directive failed") from failure
    except (jsonpatch.JsonPatchException, JsonPointerException, RecursionError) as failure:
        raise Refused(400, "a directive cannot be applied") from failure
    if not isinstance(after, dict):
        raise Refused(400, "the patch leaves no object")
    return after


def _members(directive: dict[str, Any]) -> list[str]:
    """The members of the registration that a directive may change; "" is all of them."""
    paths = [directive["path"], directive.get("from", directive["path"])]
    return [path.split("/", 2)[1].replace("~1", "/").replace("~0", "~") if path else "" for path in paths]


def _typed(directive: Any, options: Options) -> dict[str, Any]:
    """The directive with its value as JSON, by the documented shape `{op, path, value}` and the option `values`."""
    if not isinstance(directive, dict) or directive.get("op") not in _OPERATIONS:
        raise Refused(400, "a directive is not valid")
    for path in (directive.get("path"), directive.get("from", "")):
        if not isinstance(path, str) or (path and not path.startswith("/")):
            raise Refused(400, "a directive's path is not valid")
    if options.values == "native" or "value" not in directive:
        return directive
    if options.values == "strict_string" and not isinstance(directive["value"], str):
        raise Refused(400, "a directive's value is not a string")
    return directive | {"value": _native(directive["path"].split("/"), directive["value"])}


def _native(path: list[str], value: Any) -> Any:
    if not isinstance(value, str) or not (path[-1] in _JSON or (len(path) == 3 and path[1] in _LISTS)):
        return value
    try:
        return decode(value)
    except (ValueError, RecursionError) as failure:
        raise Refused(400, "a directive's value cannot be converted") from failure
