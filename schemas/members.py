"""The members of a payload's objects, read so that a name that is present twice, or in another spelling, is noticed.

A JSON parser takes the last of two equal names and ignores a name in another case, and reports neither (RFC 8259, 4:
"unpredictable"). So a payload that is not `plain` is read again here, slowly. Names are compared by their letters and
figures, as .NET does it; where a member is present twice, the two values are compared by what they mean; a member
that nothing depends on (`values.DETAIL`) is left out if it cannot be read.
Most payloads are plain. The check costs half as much CPU as validation.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, ClassVar, Final, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import from_json

from schemas.values import DETAIL, Payload, letters

#: The items of an exam: most of a large payload, and no model reads them. The check skips them.
_ITEMS = re.compile(rb'"items"\s*:\s*\[\s*\{')
_ITEMS_END = re.compile(rb"\}\s*\]")
_NAME_END = re.compile(rb'"[ \t\r\n]*:')
#: The types of what has members or items.
_INNER: Final = frozenset((dict, list))
_SPACED: Final = (b" :", b"\t:", b"\r:", b"\n:")
#: Longer whole numbers cost time to convert, and no field takes them.
_LONGEST_WHOLE: Final = 40
#: How many names that no model reads are cached, and the longest that is cached: they bound the memory.
_NAMES_REMEMBERED: Final = 2000
_LONGEST_NAME: Final = 64


class Members(list[tuple[str, Any]]):
    """A JSON object as it was sent: every name with its value, in order, repeated names too."""


class Spelled(Payload):
    """An object whose members go by several names."""

    #: Name -> its other names, such as `a, b | c`: groups, of which an earlier one counts before a later one. The name
    #: itself belongs to the first group, unless it stands in another. Two names of one group must agree.
    spellings: ClassVar[Mapping[str, str]] = {}


def parse(body: bytes) -> Any:
    """The JSON document, objects as `Members`. Raises ValueError.

    More tolerant than the models' own parser: a lone surrogate, a huge number or deep nesting is JSON, and may stand
    where no model reads it.
    """
    try:
        return json.loads(body.decode(), object_pairs_hook=Members, parse_int=_whole)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _whole(text: str) -> int | float:
    return int(text) if len(text) <= _LONGEST_WHOLE else float(text)


def plain(body: bytes, model: type[Payload]) -> bool:
    """Whether every name that the model reads is present in its own spelling, and once in each object.

    False negatives are possible, false positives are not. Some 25 µs for 3 KB.
    """
    looked_at = _without_items(body)
    try:
        document = from_json(looked_at)
    except ValueError:
        return False
    if not isinstance(document, dict):
        return False
    # A text value may contain what looks like the end of a name: then too many names are counted, and it is not plain.
    return _count(document, _names(model)) == _name_ends(looked_at)


def _name_ends(body: bytes) -> int:
    """How many names there are, or more. A name ends in a quote and a colon, with any space between."""
    if any(before_colon in body for before_colon in _SPACED):
        return len(_NAME_END.findall(body))
    return body.count(b'":')


def _without_items(body: bytes) -> bytes:
    kept, at = [], 0
    while (start := _ITEMS.search(body, at)) and (end := _ITEMS_END.search(body, start.end())):
        kept.append(body[at : start.end()])
        at = end.start()
    return b"".join((*kept, body[at:]))


def _count(document: dict[str, Any], names: "_Names") -> int:
    """How many members there are in total; a negative number if one is in another spelling."""
    count, found = 0, list[Any]((document,))
    for value in found:  # which grows
        inner: Iterable[Any] = value
        if type(value) is dict:
            if not names.fine.issuperset(value) and not names.are_fine(value):
                return -1
            count, inner = count + len(value), value.values()
        found += [item for item in inner if type(item) in _INNER]
    return count


class _Names:
    """The names that a model reads, and others that cannot be taken for one of them (`fine`)."""

    def __init__(self, model: type[Payload]) -> None:
        self._ours = frozenset(map(letters, _all_names(model)))
        self.fine = set(_all_names(model))

    def are_fine(self, names: Iterable[str]) -> bool:
        """Whether each is exactly ours, or like none of ours. Caches the second kind, up to a bound."""
        others = [name for name in names if name not in self.fine]
        if any(letters(name) in self._ours for name in others):
            return False
        if len(self.fine) < _NAMES_REMEMBERED:
            self.fine.update(name for name in others if len(name) < _LONGEST_NAME)
        return True


@cache
def _names(model: type[Payload]) -> _Names:
    return _Names(model)


def _all_names(model: type[Payload]) -> Iterator[str]:
    for place in _places(model):
        yield place.alias
        if place.inner:
            yield from _all_names(place.inner)


@dataclass(frozen=True, slots=True)
class _Place:
    """A field of a model: how it is named, and what is read there."""

    alias: str
    #: By their letters, in groups: an earlier group counts before a later one.
    names: tuple[frozenset[str], ...]
    #: The model of what is there, or of each in a list.
    inner: type[Payload] | None
    many: bool
    detail: bool
    adapter: TypeAdapter[Any]


@cache
def _places(model: type[Payload]) -> tuple[_Place, ...]:
    return tuple(_place(model, name, info) for name, info in model.model_fields.items())


def _place(model: type[Payload], name: str, info: FieldInfo) -> _Place:
    alias = info.alias or name
    spellings = model.spellings.get(alias, "") if issubclass(model, Spelled) else ""
    groups = [[other.strip() for other in group.split(",") if other.strip()] for group in spellings.split("|")]
    if not any(alias in group for group in groups):
        groups[0].append(alias)
    names = tuple(frozenset(map(letters, group)) for group in groups)
    inner = next((one for one in _types(info.annotation) if issubclass(one, Payload)), None)
    typed: Any = info.annotation
    for one in info.metadata:
        typed = Annotated[typed, one]
    config = None if inner else ConfigDict(**{**model.model_config, "alias_generator": None})
    many = any(one is list for one in _types(info.annotation))
    return _Place(alias, names, inner, many, DETAIL in info.metadata, TypeAdapter(typed, config=config))


def _types(annotation: Any) -> Iterator[type]:
    """The classes in an annotation, `list` for a list."""
    inner = get_args(annotation)
    origin = getattr(annotation, "__origin__", None)
    if isinstance(origin, type):
        yield origin
    elif isinstance(annotation, type):
        yield annotation
    for one in inner:
        yield from _types(one)


@dataclass(slots=True)
class Reader:
    """Turns `Members` into what a model can validate."""

    context: dict[str, Any]
    #: The members that are present twice with different meanings, each with its place.
    repeated: list[str] = field(default_factory=list)

    def agreed(self, model: type[Payload], sent: Any, at: str = "") -> Any:
        """The object under the model's own names, each once. Anything but an object is left to the model to refuse."""
        if not isinstance(sent, Members):
            return sent
        lettered = [(letters(name), name, value) for name, value in sent]
        ours: dict[str, Any] = {}
        for place in _places(model):
            groups = [[(name, value) for key, name, value in lettered if key in names] for names in place.names]
            present = next(filter(None, map(_not_blank, groups)), None) or next(filter(None, groups), None)
            if present:
                self._take(place, present, ours, f"{at}.{place.alias}".removeprefix("."))
        return ours

    def _take(self, place: _Place, present: list[tuple[str, Any]], ours: dict[str, Any], at: str) -> None:
        """One member into `ours`: of several values the one under the document's own name, else the last."""
        values = [self._agreed_value(place, value, at) for _, value in present]
        if len(values) > 1 and any(self._meaning(place, one) != self._meaning(place, values[0]) for one in values):
            self.repeated.append(f"{at}: present twice, with different values")
        exact = [value for (name, _), value in zip(present, values, strict=True) if name == place.alias]
        value = (exact or values)[-1]
        if not place.detail or _valid(place.adapter.validate_python, value, self.context):
            ours[place.alias] = value

    def _agreed_value(self, place: _Place, value: Any, where: str) -> Any:
        if place.inner is None:
            return _plain_json(value)
        if not place.many or not isinstance(value, list) or isinstance(value, Members):
            return self.agreed(place.inner, value, where)
        items = [self.agreed(place.inner, item, f"{where}[{n}]") for n, item in enumerate(value) if item is not None]
        if not place.detail:
            return items
        read = place.inner.model_validate
        return [item for item in items if isinstance(item, dict) and _valid(read, item, self.context)]

    def _meaning(self, place: _Place, value: Any) -> Any:
        """What a value means, for a comparison; a value that cannot be read means itself."""
        try:
            means = place.adapter.validate_python(value, context=self.context)
        except ValidationError:
            return ("unreadable", repr(value))
        return means.casefold() if isinstance(means, str) and "@" in means else means


def _not_blank(present: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Null and blank do not count beside a value."""
    return [one for one in present if one[1] is not None and not (isinstance(one[1], str) and not one[1].strip())]


def _plain_json(value: Any) -> Any:
    """A value that no model describes, with objects as dictionaries."""
    if isinstance(value, Members):
        return {name: _plain_json(one) for name, one in value}
    return [_plain_json(one) for one in value] if isinstance(value, list) else value


def _valid(read: Callable[..., Any], value: Any, context: dict[str, Any]) -> bool:
    try:
        read(value, context=context)
    except ValidationError:
        return False
    return True
