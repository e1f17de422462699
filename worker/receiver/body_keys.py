"""Finds the members of a JSON object that are credentials, in bounded time, whatever the bytes are.

A stranger may send megabytes here, and nothing is parsed: one regular expression finds the names, and the depth of each
is counted over the text without its strings. All of that runs in C, at some 10 ns a byte, and takes the memory of a few
copies of the text.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from itertools import accumulate, islice
from typing import Final, NamedTuple

#: Names that are looked at, at any depth. More are not a result, but an attempt to keep us busy.
_NAMES_AT_MOST: Final = 20_000
#: How often each name may stand in one object.
_REPEATED_AT_MOST: Final = 100
_BEGIN: Final = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{")
_SPACE: Final = b" \t\r\n"
_VALUE: Final = re.compile(rb'[ \t\r\n]*(?P<value>"[^"]*"|[^\s"\[\]{},]*)')
_STRING: Final = re.compile(rb'"[^"\0]*"')
_TOKEN: Final = re.compile(rb'"[^"]*"|[\[\]{}]')
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_STRUCTURE: Final = bytes(set(range(256)) - set(b'"[]{}\0'))
#: JSON's short escapes, by what they stand for (RFC 8259, 7).
_SHORT: Final = {'"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}


class Member(NamedTuple):
    """A member of the outermost object with one of the wanted names."""

    #: As it stands in the text, perhaps with escapes.
    name: bytes
    #: As it stands in the text; a string with its quotation marks.
    value: bytes
    start: int
    end: int


class Found(NamedTuple):
    """The members in order, repeated ones too."""

    members: list[Member]
    #: Whether the text begins and ends as one object does. It may still not be JSON.
    is_object: bool


_NONE: Final = Found([], is_object=False)


def find(body: bytes, names: Collection[str]) -> Found:
    """The members with one of `names` of the object that `body` is, or begins with."""
    begin = _BEGIN.match(body)
    if begin is None:
        return _NONE
    spans = [match.span() for match in islice(_called(frozenset(names)).finditer(body, begin.end()), _NAMES_AT_MOST)]
    if len(spans) == _NAMES_AT_MOST:
        return _NONE
    plain = _without_escapes(body)
    bare = _brackets(plain, spans, begin.end())
    changes = [part.count(b"[") - part.count(b"]") for part in bare.split(b"\0")]
    depths = list(accumulate(changes, initial=1))[1:]
    if depths.count(1) > _REPEATED_AT_MOST * len(names):
        return _NONE
    members = [_member(body, plain, *span) for span, depth in zip(spans, depths[:-1], strict=True) if depth == 1]
    ended = depths[-1] == 0 and b'"' not in bare and plain.rstrip(_SPACE).endswith(b"}")
    return Found(members, ended)


def blanked(body: bytes, members: Collection[Member]) -> bytes:
    """The body with an empty text in place of the value of each of `members`."""
    parts, at = list[bytes](), 0
    for member in members:
        parts += (body[at : member.start], b'""')
        at = member.end
    return b"".join((*parts, body[at:]))


def _without_escapes(body: bytes) -> bytes:
    """The same length, with quotation marks only where a string begins or ends, and no NUL."""
    return body.replace(b"\\\\", b"__").replace(b'\\"', b"__").replace(b"\0", b"_")


def _brackets(plain: bytes, spans: Collection[tuple[int, int]], at: int) -> bytes:
    """The brackets outside strings, and a NUL for each of `spans`. An unpaired quotation mark stays."""
    parts = list[bytes]()
    for start, end in spans:
        parts.append(plain[at:start])
        at = end
    parts.append(plain[at:])
    structure = b"\0".join(parts).translate(_ONE_KIND, _ALL_BUT_STRUCTURE)
    return _STRING.sub(b"", structure.replace(b'""', b""))


def _member(body: bytes, plain: bytes, start: int, end: int) -> Member:
    value = _VALUE.match(plain, end)
    assert value is not None  # it matches nothing, too
    at, behind = value.span("value")
    if plain[at : at + 1] in (b"[", b"{"):
        behind = _end_of_nested(plain, at)
    return Member(body[start : body.rindex(b'"', start, end) + 1], body[at:behind], at, behind)


def _end_of_nested(plain: bytes, at: int) -> int:
    depth = 0
    for token in _TOKEN.finditer(plain, at):
        depth += token[0] in (b"[", b"{")
        depth -= token[0] in (b"]", b"}")
        if depth == 0:
            return token.end()
    return len(plain)


@lru_cache(maxsize=64)
def _called(names: frozenset[str]) -> re.Pattern[bytes]:
    """Matches a member's name, one of `names` in any spelling that JSON allows, and its colon."""
    first = b"".join(re.escape(name[:1].encode()[:1]) for name in names)
    spelled = b"|".join(b"".join(map(_spelled, name)) for name in names)
    return re.compile(rb'"(?=[\\' + first + rb'])(?<!\\")(?:' + spelled + rb')"[ \t\r\n]*:')


def _spelled(character: str) -> bytes:
    """As it is, `\\u` and its number in hexadecimal in either case (two of them above U+FFFF), or the short escape."""
    digits = character.encode("utf-16-be").hex()
    units = (digits[at : at + 4] for at in range(0, len(digits), 4))
    forms = [b"".join(rb"\\u(?i:" + unit.encode() + b")" for unit in units)]
    if character >= " " and character not in '"\\':
        forms.append(re.escape(character.encode()))
    if character in _SHORT:
        forms.append(rb"\\" + re.escape(_SHORT[character].encode()))
    return b"(?:" + b"|".join(forms) + b")"
