"""What we use of Rhythm's exam registrations: the record, a page of records, patches, and a batch and its reply.

Rhythm is read tolerantly. Only a registration's `id` is required; another member that is null, missing or of a type
that the document does not give reads as None, so that one odd record never spoils a page of a hundred. Members that
we do not use are ignored. Text forms of these models show ids only: everything else may be personal.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

#: Operations that one batch may carry (Rhythm, Exam Registrations API: Execute Batch Operations).
BATCH_LIMIT = 100
#: What a registration's id looks like; the document's own pattern has `-` where Python takes it for a range.
REGISTRATION_ID = re.compile(r"[\w|:-]{1,1024}", re.ASCII)


class Status(StrEnum):
    """The documented words for a registration's status. A record may hold another word, so fields are plain `str`.

    Rhythm, Exam Registrations API: `status`.
    """

    DRAFT = "draft"
    REGISTERED = "registered"
    PASSED = "passed"
    FAILED = "failed"
    NO_SHOW = "no show"
    CANCELLED = "cancelled"


#: Awaits its result.
OPEN: Final = frozenset({Status.REGISTERED})
#: Has its result.
SETTLED: Final = frozenset({Status.PASSED, Status.FAILED, Status.NO_SHOW})
#: Never written to: not yet a registration, or no longer one.
NEVER: Final = frozenset({Status.DRAFT, Status.CANCELLED})


class _Lenient:
    """Annotation: what cannot be read counts as absent. Runs in pydantic's core, so it costs nothing on good input."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=None, on_error="default")


_T = TypeVar("_T")
_Maybe = Annotated[_T | None, _Lenient()]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, coerce_numbers_to_str=True)


class _Record(_Frozen):
    """The members of a registration that we read, all but its id."""

    number: _Maybe[Decimal] = None
    exam_id: _Maybe[str] = None
    exam_offering_id: _Maybe[str] = None
    #: The association's id of the person. Personal.
    student_id: _Maybe[str] = None
    #: Personal; as Rhythm has it, not case-folded.
    email_address: _Maybe[str] = None
    #: Personal: shown to a person who has to choose among registrations, and used for nothing else.
    name: _Maybe[str] = None
    first_name: _Maybe[str] = None
    last_name: _Maybe[str] = None
    #: When the person registered, as text; `registered_at` is the instant.
    date: _Maybe[str] = None
    #: When the exam is or was sat, as text; `exam_at` is the instant. The document's description of it is a slip.
    exam_date: _Maybe[str] = None
    #: JSON number 70.1 reads as exactly `Decimal("70.1")`.
    score: _Maybe[Decimal] = None
    #: A `Status` word, or one that the document does not know.
    status: _Maybe[str] = None
    #: Kept whole, in Rhythm's order: patches name entries by index. None: the member is absent.
    custom_field_values: _Maybe[list[dict[str, Any]]] = None
    #: Counts the record's changes; a number with no fraction (3 or 3.0).
    sys_version: _Maybe[int] = None
    #: True: Rhythm refuses changes.
    sys_locked: _Maybe[bool] = None
    sys_last_modified_by_id: _Maybe[str] = None
    sys_last_modified_at: _Maybe[str] = None

    @property
    def registered_at(self) -> datetime | None:
        """`date` as an aware instant; None when absent or unreadable."""
        return _instant(self.date)

    @property
    def exam_at(self) -> datetime | None:
        """`exam_date` as an aware instant (a day alone: its midnight, UTC); None when absent or unreadable."""
        return _instant(self.exam_date)


class Registration(_Record):
    """Rhythm's record of one person's registration for one exam.

    ---
    Rhythm, Exam Registrations API: Returns a exam registration from the system by its ID.
    """

    id: str = Field(min_length=1)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Shows only what is not personal."""
        return [("id", self.id), ("sys_version", self.sys_version)]


class Page(_Frozen):
    """One page of a list of registrations.

    ---
    Rhythm, Exam Registrations API: search, studentExam. "Gets all" answers a bare array instead.
    """

    items: list[Registration] | None = Field(alias="Items")
    #: Where the next page starts: text, or an object to be JSON-encoded. None, "" or {}: this was the last page.
    last_evaluated_key: str | dict[str, Any] | None = Field(default=None, alias="LastEvaluatedKey")

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Shows only what is not personal."""
        return [("items", len(self.items or ()))]


def page_of(answer: Page | list[Registration]) -> tuple[list[Registration], str]:
    """What is on a page, and the next one's `exclusiveStartKey`: "" after the last."""
    if isinstance(answer, list):
        return answer, ""
    key = answer.last_evaluated_key or ""
    return answer.items or [], key if isinstance(key, str) else encode(key).decode()


@dataclass(frozen=True, slots=True)
class PatchOperation:
    """One RFC 6902 operation. `value` counts for `add`, `replace` and `test`; decimals may stand anywhere in it.

    ---
    Rhythm, Exam Registrations API: Partially updates a exam registration.
    """

    op: Literal["add", "replace", "remove", "test"]
    path: str
    value: Any = field(default=None, repr=False)

    def directive(self, as_text: bool = False) -> dict[str, Any]:
        """As it is sent. `as_text`: a value that is not text becomes its JSON text, as the document's type asks.

        ---
        Rhythm, Exam Registrations API: Partially updates a exam registration: "value: string".
        """
        if self.op == "remove":
            return {"op": self.op, "path": self.path}
        text = as_text and self.value is not None and not isinstance(self.value, str)
        return {"op": self.op, "path": self.path, "value": encode(self.value).decode() if text else self.value}


class BatchResult(_Record):
    """One entry of a batch's `results`, whose form the document leaves open: every form that we know how to read.

    It may be the registration itself, or words about it, with or without the registration inside.
    """

    id: _Maybe[str] = None
    success: _Maybe[bool] = None
    status_code: _Maybe[int] = None
    status_code_camel: _Maybe[int] = Field(default=None, alias="statusCode")
    code: _Maybe[int] = None
    error: Any = None
    errors: Any = None
    error_message: _Maybe[str] = None
    object: _Maybe[Registration] = None
    result: _Maybe[Registration] = None
    payload: _Maybe[Registration] = None
    item: _Maybe[Registration] = None

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Shows only what is not personal."""
        return [("id", self.id)]


class BatchReply(_Frozen):
    """The reply to a batch. HTTP 200 does not say that any of it was done.

    ---
    Rhythm, Exam Registrations API: Execute Batch Operations.
    """

    success_count: _Maybe[int] = None
    error_count: _Maybe[int] = None
    results: _Maybe[list[BatchResult]] = None


def encode(value: Any) -> bytes:
    """Compact JSON; a decimal is a number in its shortest form (70.10 → 70.1, 70.0 → 70), exact to 15 digits."""
    return json.dumps(value, default=_number, separators=(",", ":"), allow_nan=False).encode()


def _number(value: Any) -> int | float:
    if not isinstance(value, Decimal):
        raise TypeError(f"{type(value).__name__} has no JSON form here")
    return int(value) if value == value.to_integral_value() else float(value)


def _instant(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
