"""The field types that the payload models share: lenient about spelling, strict about meaning.

A blank is an absence. What has one obvious meaning is read; what has none is refused or kept as the platform wrote it,
never guessed. The messages raised here are shown to operators, so they never repeat a value.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from schemas.outcome import Verdict


class Payload(BaseModel):
    """A vendor's JSON object: named as the vendor names it, unknown members ignored, values never shown in errors.

    Numbers are taken for text because ids that look like numbers are sent as numbers by some senders.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        alias_generator=to_camel,
        coerce_numbers_to_str=True,
        str_strip_whitespace=True,
    )


def refuse(what: str) -> NoReturn:
    """Refuse a field, in words for an operator; never with the value."""
    raise PydanticCustomError("refused", what)


Value = TypeVar("Value")
Member = TypeVar("Member")

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

_BOUND = 10**12
_LONGEST_NUMBER = 40
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_WORDS = {
    **dict.fromkeys(("pass", "passed", "p", "true"), Verdict.PASSED),
    **dict.fromkeys(("fail", "failed", "f", "false"), Verdict.FAILED),
}


def _number(value: object) -> Decimal | None:
    """One Decimal for each number, however it is written: 80, 80.0, "80.00" and 8e1 are the same to the letter.

    Plain Python, for it is 2 to 3 times as fast as pydantic's own bounded Decimal, and most fields are numbers.
    """
    kind = type(value)
    if kind is int or kind is float:
        if not -_BOUND < value < _BOUND:  # type: ignore[operator]  # a comparison with NaN is false
            refuse("not a number within reason")
        whole = int(value)  # type: ignore[call-overload]
        return Decimal(whole) if whole == value else Decimal(repr(value))
    if value is None:
        return None
    return _number_in(value) if isinstance(value, str) else refuse("not a number")


def _number_in(text: str) -> Decimal | None:
    text = text.strip()
    if not text:
        return None
    # Decimal() alone would also take "1_000", "NaN" and the digits of other scripts.
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        refuse("not a number")
    number = Decimal(text)
    # Bounded both ways, for 1e-999999999 written out would fill the memory.
    if not -30 <= number.adjusted() < 12:
        refuse("not a number within reason")
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
    try:
        instant = datetime.fromisoformat(text)
        instant = instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        refuse("not an ISO 8601 date and time")
    # 0001-01-01 is how .NET writes a date that was never set.
    return instant if instant.year > 1 else None


def _id(value: object) -> object:
    if isinstance(value, float):
        refuse("a fraction cannot be an id")
    if not isinstance(value, str):
        return value
    text = value.strip()
    # isprintable() is the quick answer; it says no to some characters that do no harm.
    return text or None if text.isprintable() or not _CONTROL.search(text) else refuse("has control characters")


def _or_blank(value: object) -> object:
    return refuse("blank") if value is None else value


def _required_percentage(value: object) -> object:
    return _or_blank(_percentage(value))


def _required_instant(value: object) -> object:
    return _or_blank(_instant(value))


def _required_id(value: object) -> object:
    return _or_blank(_id(value))


def _maybe_flag(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _flag(value: object) -> object:
    value = _maybe_flag(value)
    return False if value is None else value


def _word(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return (value.strip() or None) if isinstance(value, str) else value


#: A JSON number or a numeric string.
Number = Annotated[Decimal | None, PlainValidator(_number)]
#: From 0 to 100, fractions too.
Percentage = Annotated[Decimal | None, PlainValidator(_percentage)]
RequiredPercentage = Annotated[Decimal, PlainValidator(_required_percentage)]
#: ISO 8601, seconds optional, any number of fraction digits; without a zone it is UTC, with one it is converted.
Instant = Annotated[datetime | None, BeforeValidator(_instant)]
RequiredInstant = Annotated[datetime, BeforeValidator(_required_instant)]
#: The first bad member is enough to refuse a list: a thousand complaints cost time and tell no more.
Many = Annotated[list[Member] | None, Field(fail_fast=True)]
#: What something is found by again.
RequiredId = Annotated[Annotated[str, Field(max_length=255)], BeforeValidator(_required_id)]
Id = Annotated[Annotated[str, Field(max_length=255)] | None, BeforeValidator(_id)]
#: As sent: `Candidate` says how addresses are compared.
Email = Annotated[Annotated[str, Field(max_length=320)] | None, BeforeValidator(_id)]
#: True or false; absent and blank are false.
Flag = Annotated[bool, BeforeValidator(_flag)]
#: The same, but absent and blank are absent.
MaybeFlag = Annotated[bool | None, BeforeValidator(_maybe_flag)]
#: A word for passed or failed, as sent: `verdict` says what it means.
PassFail = Annotated[str | None, BeforeValidator(_word)]


def verdict(word: str | None) -> Verdict | None:
    """What a pass/fail word means; None where it is absent or not one we know."""
    return _WORDS.get(word.casefold()) if word else None


def known(values: Mapping[str, Value | None]) -> dict[str, Value]:
    """The values that are there."""
    return {key: value for key, value in values.items() if value is not None}


def told(values: Mapping[str, Value | None]) -> dict[str, Value]:
    """The values that are there and not blank. (Not `known`: to compare a Decimal with a text is slow.)"""
    return {key: value for key, value in values.items() if value is not None and value != ""}
