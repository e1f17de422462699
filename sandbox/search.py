"""Search filters and pages, as the Exam Registrations document lists them.

Pure over records that the caller gives; what a reader sees of a record (stale or not) is the caller's `view`.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sandbox.calls import Refused, decode
from sandbox.fields import Registration
from sandbox.options import Options
from sandbox.registrations import Record

Filter = Callable[[Registration], bool]
View = Callable[[Record], Registration]

_TEXTS = ("name", "email_address", "job_title", "city", "state")
_RANGES = ("date", "sys_created_at")
_CHOICES = (
    "exam_id", "exam_offering_id", "location", "testing_facility_id", "training_provider_id", "training_location_id",
    "score", "status",
)  # fmt: skip


def filters(body: Any, options: Options) -> list[Filter]:
    """One predicate for each filter; an unknown one is 400 (a guess: there is, for one, no filter by student)."""
    if not isinstance(body, dict) or not isinstance(body.get("ids", []), list):
        raise Refused(400, "the search is not valid")
    return [_filter(name, wanted, options) for name, wanted in body.items() if name != "ids"]


def _filter(name: str, wanted: Any, options: Options) -> Filter:
    if name in _TEXTS and isinstance(wanted, str):
        return lambda registration: _is_like(str(registration.get(name, "")), wanted, options.search_text)
    if name in _CHOICES and isinstance(wanted, list):
        return lambda registration: name in registration and registration[name] in wanted
    if name in _RANGES and isinstance(wanted, list) and len(wanted) == 2:
        first, last = _when(wanted[0]), _when(wanted[1])
        if first and last:
            return lambda registration: bool((at := _when(registration.get(name))) and first <= at <= last)
    raise Refused(400, f"the filter {name} is not valid")


def _is_like(text: str, wanted: str, how: str) -> bool:
    if how == "exact":
        return text == wanted
    text, wanted = text.casefold(), wanted.casefold()
    return wanted in text if how == "contains" else wanted == text


def _when(text: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def page(
    records: Sequence[Record], conditions: Sequence[Filter], view: View, start_key: str | None, options: Options
) -> tuple[list[Registration], Any]:
    """One page and its `LastEvaluatedKey`, None on the last. `records` are in the order of creation."""
    after = -1 if start_key is None else _place(start_key, options)
    rest = [record for record in records if record.place > after]
    looked_at = rest[: options.page_size] if options.sparse_pages else rest
    seen = [(record, view(record)) for record in looked_at]
    fitting = [pair for pair in seen if all(fits(pair[1]) for fits in conditions)]
    items = fitting[: options.page_size]
    if len(looked_at) < len(rest):
        return [registration for _, registration in items], _key(looked_at[-1], options)
    return [registration for _, registration in items], _key(items[-1][0], options) if items != fitting else None


def _key(record: Record, options: Options) -> Any:
    key = f"{record.id}~{record.place}"
    return {"id": record.id, "key": key} if options.cursor == "object" else key


def _place(start_key: str, options: Options) -> int:
    """The place in a `LastEvaluatedKey` of ours; anything else is 400."""
    try:
        key = decode(start_key)["key"] if options.cursor == "object" else start_key
        return int(key.rsplit("~", 1)[1])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as failure:
        raise Refused(400, "exclusiveStartKey is not valid") from failure
