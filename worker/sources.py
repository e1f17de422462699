"""Reads what a platform sent: which model it is checked against, and what is said when it does not fit.

Pure: no I/O, no clock. Whatever the bytes, the answer is an outcome, None (not a result), or a `PermanentError` whose
detail names fields and what is wrong with them, never a value: values are personal.
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Final, Protocol

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from schemas import certiverse, drillster, members, prov, values
from schemas.event import Reason
from schemas.outcome import ExamOutcome, Source
from worker.encodings import looks_like
from worker.errors import PermanentError

#: How many problems a detail names.
PROBLEMS_SHOWN = 5
#: .NET likes to write it in front of a body; JSON does not allow it.
UTF8_BOM = b"\xef\xbb\xbf"


class Payload(Protocol):
    """What every payload model can tell."""

    @property
    def is_result(self) -> bool: ...

    def to_outcome(self) -> ExamOutcome: ...


#: The whole payload of each source; each is a `Payload` too.
MODELS: Final[dict[Source, type[values.Payload]]] = {
    Source.CERTIVERSE: certiverse.ExamResult,
    Source.DRILLSTER: drillster.TestCompletedEvent,
    Source.PROV: prov.ScoreResult,
}
#: As much of it as tells whether it is a result at all; not there where all that is documented to be sent is one.
KINDS: Final[dict[Source, type[values.Payload]]] = {Source.DRILLSTER: drillster.Kind}


@dataclass(frozen=True, slots=True)
class Careful:
    """A payload whose members were read one by one, and what was said twice in it, differently."""

    payload: Payload
    twice: tuple[str, ...]

    @property
    def is_result(self) -> bool:
        return self.payload.is_result

    def to_outcome(self) -> ExamOutcome:
        outcome = self.payload.to_outcome()
        said = "; ".join(filter(None, (*self.twice[:PROBLEMS_SHOWN], outcome.contradiction)))
        return outcome.model_copy(update={"contradiction": said or None})


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
    """The id of the event that a delivery makes: the same for the same bytes to the same place, whenever they come.

    `path` is the part below the source as it stood in the URL, `body` is decoded (not gzip). Each of the four goes in
    behind its length, so that no two deliveries run together into the same bytes.
    """
    digest = hashlib.sha256()
    for part in (tenant.encode(), source.encode(), path.encode("utf-8", "surrogatepass"), body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return "evt_" + base64.b32encode(digest.digest()[:20]).decode().lower()[:26]


def read(source: Source, body: bytes, path: str = "") -> ExamOutcome | None:
    """What the delivery means; None if it is not a result. Raises `PermanentError` as `validate` does."""
    payload = validate(source, body, path)
    return payload.to_outcome() if payload else None


def validate(source: Source, body: bytes, path: str = "") -> Payload | None:
    """The payload, checked; None if it is not a result (another event type that the platform documents).

    `path` is the part below the source, percent-encoded as in the URL; only Drillster uses it.
    Raises `PermanentError` with `INVALID_JSON` or `INVALID_PAYLOAD`.
    """
    body = body.removeprefix(UTF8_BOM)
    payload = _at_once(MODELS[source], body, path) or _carefully(source, body, path)
    return payload if payload and payload.is_result else None


def _at_once(model: type[values.Payload], body: bytes, path: str) -> Payload | None:
    """The payload, if it fits the model as it is. (Not what goes by several names: that is none the models know.)"""
    if issubclass(model, members.Spelled):
        return None
    try:
        payload = model.model_validate_json(body, context={"path": path})
    except ValidationError:
        return None
    return payload if members.plain(body, model) else None  # type: ignore[return-value]  # each is a Payload


def _carefully(source: Source, body: bytes, path: str) -> Payload | None:
    """The payload, read member by member; None if it does not fit and says of itself that it is no result."""
    model, reader = MODELS[source], members.Reader({"path": path})
    try:
        document = members.parse(body)
    except ValueError:
        raise _not_json(model, body, path) from None
    try:
        payload = model.model_validate(reader.agreed(model, document), context=reader.context)
    except ValidationError as error:
        if source in KINDS and _is_something_else(KINDS[source], document, path):
            return None
        # Not chained: the cause holds the input, and tracebacks travel.
        raise _refusal(error) from None
    return Careful(payload, tuple(reader.twice))  # type: ignore[arg-type]  # each is a Payload


def _not_json(model: type[values.Payload], body: bytes, path: str) -> PermanentError:
    """In the words of pydantic's parser, which tell the place."""
    try:
        model.model_validate_json(body, context={"path": path})
    except ValidationError as error:
        return _refusal(error)
    return PermanentError(Reason.INVALID_JSON, "not JSON")


def _is_something_else(kind: type[values.Payload], document: object, path: str) -> bool:
    """Whether what does not fit says of itself that it is no result."""
    reader = members.Reader({"path": path})
    try:
        told = kind.model_validate(reader.agreed(kind, document), context=reader.context)
    except ValidationError:
        return False
    return not told.is_result and not reader.twice  # type: ignore[attr-defined]


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
    """What the body looks like. The error has it: as bytes, or as text where it is UTF-8."""
    body = error.errors(include_url=False)[0]["input"]
    told = looks_like(body if isinstance(body, bytes) else str(body).encode("utf-8", "replace"))
    return f"it looks like {told}. " if told else ""


def _place(problem: ErrorDetails) -> str:
    """`testParts[0].rawScore`. A member that was absent and taken from the path goes by the model's name for it."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{to_camel(step)}" for step in problem["loc"])
    return "".join(steps).removeprefix(".")


def _complaint(problem: ErrorDetails) -> str:
    if problem["type"] == "refused":
        return problem["msg"]
    return COMPLAINTS.get(problem["type"], "not valid")
