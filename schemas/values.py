"""The field types that the payload models share: lenient about spelling, strict about meaning.

A blank value is absent. A value with one obvious meaning is read; any other is refused, or kept as the platform wrote
it, and never guessed. The messages raised here are shown to operators, so they never repeat a value.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetPydanticSchema, PlainValidator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError, core_schema

from schemas.outcome import ExamOutcome, Verdict


class Payload(BaseModel):
    """A vendor's JSON object: named as the vendor names it, unknown members ignored, values never shown in errors.

    A number is accepted where text is expected, because some senders write numeric ids as numbers.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        alias_generator=to_camel,
        coerce_numbers_to_str=True,
        str_strip_whitespace=True,
    )


class Message(Payload):
    """As much of a message as tells whether it is a result."""

    @property
    def is_result(self) -> bool:
        """False for a message that the platform documents as something else."""
        return True


class Result(Message):
    """A whole payload."""

    def to_outcome(self) -> ExamOutcome:
        """What it means, in the one form that all platforms share."""
        raise NotImplementedError


def refuse(what: str) -> NoReturn:
    """Refuse a field, in words for an operator; never with the value."""
    raise PydanticCustomError("refused", what)


Value = TypeVar("Value")
Member = TypeVar("Member")

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

_BOUND = 10**12
_LONGEST_NUMBER = 40
_UNREASONABLE = "not a number within reason"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: The extended form of ISO 8601, as every platform writes it. `fromisoformat` also takes digits alone, week dates, any
#: letter between date and time, or an hour alone, and each Python version takes others.
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([Tt ]([01][0-9]|2[0-3]):[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
)
#: .NET's DateTime.MinValue and MaxValue: never set, whatever the zone they were written in.
_NEVER_SET = ("0001-", "9999-")
#: .NET's Guid.Empty, with and without its hyphens.
_ZEROS = ("00", "0}", "0)")
_EMPTY_GUID = re.compile(r"[({]?0{8}(-?)0{4}\1(0{4}\1){2}0{12}[)}]?")

_NO_LETTERS = re.compile(r"[^a-z0-9]")

_WORDS = {
    **dict.fromkeys(("pass", "passed", "p", "true"), Verdict.PASSED),
    **dict.fromkeys(("fail", "failed", "f", "false"), Verdict.FAILED),
}


@lru_cache(maxsize=4096, typed=True)
def _exact(value: float) -> Decimal:
    whole = int(value)
    return Decimal(whole) if whole == value else Decimal(repr(value))


def _number(value: object) -> Decimal | None:
    """One Decimal for each number, however it is written: 80, 80.0, "80.00" and 8e1 give the same text."""
    kind = type(value)
    if kind is int or kind is float:
        # A comparison with NaN is false.
        return _exact(value) if -_BOUND < value < _BOUND else refuse(_UNREASONABLE)  # type: ignore[operator]
    if value is None:
        return None
    return _number_in(value) if isinstance(value, str) else refuse("not a number")


def _number_schema(*_: object) -> core_schema.CoreSchema:
    """As `_number`, at half the cost: a JSON number is read and bounded without a call of ours."""
    whole = core_schema.int_schema(strict=True, gt=-_BOUND, lt=_BOUND)
    fraction = core_schema.float_schema(strict=True, gt=-_BOUND, lt=_BOUND, allow_inf_nan=False)
    native = core_schema.union_schema([whole, fraction], mode="left_to_right")
    return core_schema.union_schema(
        [
            core_schema.none_schema(),
            core_schema.no_info_after_validator_function(_exact, native),
            core_schema.no_info_plain_validator_function(_number),
        ],
        mode="left_to_right",
        custom_error_type="refused",
        custom_error_message=_UNREASONABLE,
    )


def _number_in(text: str) -> Decimal | None:
    text = text.strip()
    if not text:
        return None
    # Decimal() would also take "1_000", "NaN" and the digits of other scripts.
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        refuse("not a number")
    number = Decimal(text)
    # Bounded in both directions: 1e-999999999 written out would fill the memory.
    if not -30 <= number.adjusted() < 12:
        refuse(_UNREASONABLE)
    plain = f"{number:f}"
    return Decimal(plain.rstrip("0").rstrip(".") if "." in plain else plain) if number else Decimal(0)


def _percentage(value: object) -> Decimal | None:
    number = _number(value)
    return number if number is None or 0 <= number <= 100 else refuse("not between 0 and 100")


def _instant(value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str):
        refuse("not an ISO 8601 date and time")
    text = value.strip()
    if not text:
        return None
    # Nearly all write `2026-03-04T15:33:30Z`: without the expression it is read three times as fast.
    usual = len(text) == 20 and text[4::3] == "--T::Z"
    if not usual and not _INSTANT.fullmatch(text):
        refuse("not an ISO 8601 date and time")
    if text.startswith(_NEVER_SET):
        return None
    try:
        instant = datetime.fromisoformat(text if usual else text.upper())
        return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        refuse("not an ISO 8601 date and time")


def _id(value: object) -> object:
    if isinstance(value, float):
        refuse("a fraction cannot be an id")
    if not isinstance(value, str):
        return value
    text = value.strip()
    # isprintable() is fast, but also refuses some harmless characters: those are checked by the expression.
    return text or None if text.isprintable() or not _CONTROL.search(text) else refuse("has control characters")


def _optional_id(value: object) -> object:
    """.NET writes an id that was never set as an empty GUID."""
    id = _id(value)
    return None if isinstance(id, str) and id[-2:] in _ZEROS and _EMPTY_GUID.fullmatch(id) else id


def _required(read: Callable[[object], object]) -> Callable[[object], object]:
    """The same, but absent and blank are refused."""

    def read_required(value: object) -> object:
        found = read(value)
        return refuse("blank") if found is None else found

    return read_required


def _maybe_flag(value: object) -> object:
    return (value.strip() or None) if isinstance(value, str) else value


def _flag(value: object) -> object:
    value = _maybe_flag(value)
    return False if value is None else value


def _word(value: object) -> object:
    """One word for each meaning, so that "P" and true are the same; an unknown word unchanged."""
    if isinstance(value, bool):
        return Verdict.PASSED.value if value else Verdict.FAILED.value
    if not isinstance(value, str):
        return value
    text = value.strip()
    meaning = _WORDS.get(text.casefold())
    return meaning.value if meaning else text or None


def letters(name: str) -> str:
    """A name by its letters and digits alone: `candidateId`, `CandidateID` and `candidate_id` are one."""
    return _NO_LETTERS.sub("", name.lower())


#: A JSON number or a numeric string.
Number = Annotated[Decimal | None, GetPydanticSchema(_number_schema)]
#: From 0 to 100, fractions too.
Percentage = Annotated[Decimal | None, PlainValidator(_percentage)]
RequiredPercentage = Annotated[Decimal, PlainValidator(_required(_percentage))]
#: ISO 8601, seconds optional, any number of fraction digits; without a zone it is UTC, with one it is converted.
Instant = Annotated[datetime | None, BeforeValidator(_instant)]
RequiredInstant = Annotated[datetime, BeforeValidator(_required(_instant))]
#: One bad member is enough to refuse a list; listing all of them would only cost time.
Many = Annotated[list[Member] | None, Field(fail_fast=True)]
#: An id that must be there.
RequiredId = Annotated[Annotated[str, Field(max_length=255)], BeforeValidator(_required(_id))]
Id = Annotated[Annotated[str, Field(max_length=255)] | None, BeforeValidator(_optional_id)]
#: As sent.
Email = Annotated[Annotated[str, Field(max_length=320)] | None, BeforeValidator(_id)]
#: True or false; absent and blank are false.
Flag = Annotated[bool, BeforeValidator(_flag)]
#: The same, but absent and blank are absent.
MaybeFlag = Annotated[bool | None, BeforeValidator(_maybe_flag)]
#: Marks a field that only custom fields use. It affects no identity, match, verdict or score, so an unreadable value is
#: left out (`schemas/members.py`) and does not refuse the result.
DETAIL = "detail"
Text = Annotated[str | None, DETAIL]
DetailNumber = Annotated[Number, DETAIL]
DetailInstant = Annotated[Instant, DETAIL]
DetailId = Annotated[Id, DETAIL]
#: `passed`, `failed`, or an unknown word unchanged.
PassFail = Annotated[str | None, BeforeValidator(_word)]


def verdict(word: str | None) -> Verdict | None:
    """The meaning of a pass/fail word; None when it is absent or unknown."""
    return _WORDS.get(word.casefold()) if word else None


def against_the_cut(verdict: Verdict | None, by_score: Verdict | None) -> str | None:
    """The contradiction between a platform's verdict and what its own score and cut say; None when there is none."""
    if verdict is None or by_score in (None, verdict):
        return None
    return f"{verdict}, though the score {'is below' if verdict is Verdict.PASSED else 'reaches'} the cut"


def without_none(values: Mapping[str, Value | None]) -> dict[str, Value]:
    return {key: value for key, value in values.items() if value is not None}


def without_blanks(values: Mapping[str, Value | None]) -> dict[str, Value]:
    """Without None and blank text. Not for scores: to compare a Decimal with a text is slow."""
    return {key: value for key, value in values.items() if value is not None and value != ""}
