"""Reads what a platform sent: checks it against the platform's model, and says what does not fit.

Pure: no I/O, no clock. Whatever the bytes, the answer is an outcome, None (not a result), or a `PermanentError` whose
detail names fields and what is wrong with them, never a value: values are personal.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from schemas import members, values
from schemas.event import Reason
from schemas.outcome import ExamOutcome, Source
from schemas.platform import Platform, platform_of
from worker.encodings import looks_like
from worker.errors import PermanentError

#: How many problems a detail names.
PROBLEMS_SHOWN = 5
#: .NET likes to write it in front of a body; JSON does not allow it.
UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Checked:
    """A payload that fits its model, and its members that are present twice with different meanings."""

    payload: values.Result
    repeated: Sequence[str] = ()

    def to_outcome(self) -> ExamOutcome:
        """What it means; repeated members are among its contradictions."""
        outcome = self.payload.to_outcome()
        if not self.repeated:
            return outcome
        contradiction = "; ".join(filter(None, (*self.repeated[:PROBLEMS_SHOWN], outcome.contradiction)))
        return replace(outcome, contradiction=contradiction)


#: pydantic's own messages may quote the value; ours say only what was expected.
COMPLAINTS = {
    "missing": "missing",
    "model_type": "not an object",
    "list_type": "not a list",
    "string_type": "not text",
    "string_too_long": "too long",
    "string_unicode": "has half of a character",
    "bool_type": "not true or false",
    "bool_parsing": "not true or false",
    "decimal_type": "not a number",
    "decimal_parsing": "not a number",
    "finite_number": "not a finite number",
    "decimal_max_digits": "too many digits",
    "decimal_max_places": "too many digits",
    "decimal_whole_digits": "too many digits",
    "greater_than_equal": "too small",
    "less_than_equal": "too large",
}


def event_id(tenant: str, source: Source, path: str, body: bytes) -> str:
    """The id of a delivery's event: the same for the same bytes to the same place, whenever they come.

    `path` is the part below the source as it stood in the URL, `body` is decoded (not gzip). Each of the four is
    preceded by its length, so two different deliveries never hash the same bytes.
    """
    digest = hashlib.sha256()
    for part in (tenant.encode(), source.encode(), path.encode("utf-8", "surrogatepass"), body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return "evt_" + base64.b32encode(digest.digest()[:20]).decode().lower()[:26]


def read(source: Source, body: bytes, path: str = "") -> ExamOutcome | None:
    """What the delivery means; None if it is not a result. Raises `PermanentError` as `validate` does."""
    checked = validate(source, body, path)
    return checked.to_outcome() if checked else None


def validate(source: Source, body: bytes, path: str = "") -> Checked | None:
    """The payload, checked; None if it is not a result (another message that the platform documents).

    `path` is the part below the source, percent-encoded as in the URL.
    Raises `PermanentError` with `INVALID_JSON` or `INVALID_PAYLOAD`.
    """
    platform, body = platform_of(source), body.removeprefix(UTF8_BOM)
    checked = _read_at_once(platform.model, body, path) or _read_by_member(platform, body, path)
    return checked if checked and checked.payload.is_result else None


def _read_at_once(model: type[values.Result], body: bytes, path: str) -> Checked | None:
    """The payload, if each member is there once in the model's own spelling. Spelled models have no such spelling."""
    if issubclass(model, members.Spelled):
        return None
    try:
        payload = model.model_validate_json(body, context={"path": path})
    except ValidationError:
        return None
    return Checked(payload) if members.plain(body, model) else None


def _read_by_member(platform: Platform, body: bytes, path: str) -> Checked | None:
    """The payload, read member by member; None if it does not fit and says of itself that it is not a result."""
    model, reader = platform.model, members.Reader({"path": path})
    try:
        document = members.parse(body)
    except ValueError:
        raise _not_json(model, body, path) from None
    try:
        payload = model.model_validate(reader.agreed(model, document), context=reader.context)
    except ValidationError as error:
        if platform.kind and _is_something_else(platform.kind, document, path):
            return None
        # Not chained: the cause holds the input, and tracebacks travel.
        raise _refusal(error) from None
    return Checked(payload, reader.repeated)


def _not_json(model: type[values.Result], body: bytes, path: str) -> PermanentError:
    """In the words of pydantic's parser, which name the place."""
    try:
        model.model_validate_json(body, context={"path": path})
    except ValidationError as error:
        return _refusal(error)
    return PermanentError(Reason.INVALID_JSON, "not JSON")


def _is_something_else(kind: type[values.Message], document: object, path: str) -> bool:
    """Whether a payload that does not fit says of itself that it is not a result."""
    reader = members.Reader({"path": path})
    try:
        message = kind.model_validate(reader.agreed(kind, document), context=reader.context)
    except ValidationError:
        return False
    return not message.is_result and not reader.repeated


def _refusal(error: ValidationError) -> PermanentError:
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    if first["type"] == "json_invalid":
        return PermanentError(Reason.INVALID_JSON, f"not JSON: {_hint(error)}{first['ctx']['error']}")
    if first["type"] == "model_type" and not first["loc"]:
        return PermanentError(Reason.INVALID_PAYLOAD, "the body is not an object: send one object a request")
    shown = [": ".join(filter(None, (_place(problem), _complaint(problem)))) for problem in problems[:PROBLEMS_SHOWN]]
    more = len(problems) - len(shown)
    return PermanentError(Reason.INVALID_PAYLOAD, "; ".join(shown) + (f"; and {more} more" if more else ""))


def _hint(error: ValidationError) -> str:
    """What the body looks like. The error holds it: as bytes, or as text where it is UTF-8."""
    body = error.errors(include_url=False)[0]["input"]
    look = looks_like(body if isinstance(body, bytes) else str(body).encode("utf-8", "replace"))
    return f"it looks like {look}. " if look else ""


def _place(problem: ErrorDetails) -> str:
    """`testParts[0].rawScore`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{to_camel(step)}" for step in problem["loc"])
    return "".join(steps).removeprefix(".")


def _complaint(problem: ErrorDetails) -> str:
    if problem["type"] == "refused":
        return problem["msg"]
    return COMPLAINTS.get(problem["type"], "not valid")
