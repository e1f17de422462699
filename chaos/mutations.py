"""Bodies for the fuzz, made from samples: pure, and the same for the same random numbers.

A sample's text is cut into its members and values once. A mutation puts other text in their place, so that what cannot
be said by a parsed document comes out as well: a member said twice, a number of a thousand digits, half an emoji.
"""

import gzip
import json
import random
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALAR: Final = re.compile(rb"[^\s,\]\[{}:]+")
_IDS: Final = (b'deliverableid"', b'eventid"', b'candidateid"')
_SPACE: Final = b" \t\r\n"


class Span(NamedTuple):
    """A value in a text. `name` is where the name before it begins; None in a list. The outermost has depth 0."""

    name: int | None
    start: int
    end: int
    depth: int


@dataclass(frozen=True)
class Sample:
    """A payload that a platform may send. `spans` is empty where the text is not JSON."""

    source: str
    text: bytes
    spans: tuple[Span, ...]

    @cached_property
    def leaves(self) -> list[Span]:
        """The values that hold no others."""
        return [span for span in self.spans if self.text[span.start] not in b"{["]

    @cached_property
    def ids(self) -> list[Span]:
        """What makes it a result of its own: the ids of delivery, attempt, event and candidate."""
        named = [(span, self.text[span.name + 1 : span.start].lower()) for span in self.spans if span.name is not None]
        return [span for span, name in named if name.startswith(_IDS) or (span.depth == 1 and name.startswith(b'id"'))]


def sample(source: str, text: bytes) -> Sample:
    """A sample, cut."""
    spans = list[Span]()
    with suppress(ValueError):  # some samples are not JSON
        json.loads(text)
        _value(text, _past(text, 0), None, 0, spans)
    return Sample(source, text, tuple(spans))


def _past(text: bytes, at: int) -> int:
    while text[at : at + 1] and text[at] in _SPACE:
        at += 1
    return at


def _value(text: bytes, at: int, name: int | None, depth: int, spans: list[Span]) -> int:
    """Note the value that begins here and all in it. Returns where it ends."""
    start, first = at, text[at : at + 1]
    if first in (b"{", b"["):
        at = _past(text, at + 1)
        while text[at : at + 1] not in (b"}", b"]"):
            member = None
            if first == b"{":
                member, at = at, _past(text, _match(_STRING, text, at))
                at = _past(text, at + 1)  # behind the colon
            at = _past(text, _value(text, at, member, depth + 1, spans))
            if text[at] == ord(","):
                at = _past(text, at + 1)
        end = at + 1
    else:
        end = _match(_STRING if first == b'"' else _SCALAR, text, at)
    spans.append(Span(name, start, end, depth))
    return end


def _match(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None
    return found.end()


#: Values that a platform may well send.
PLAUSIBLE: Final = (
    *(b'"Pass"', b'"Fail"', b'"pass"', b'"PASSED"', b'"1"', b'"0"', b"true", b"false", b"null", b'""'),
    *(b"0", b"1", b"69.999", b"70", b"70.0", b"82.5", b"100", b"-1", b'"82.5"', b'"82,5"', b"7e1", b"0.1e-3"),
    *(b'"2026-05-04T12:30:00Z"', b'"2026-05-04T12:30:00+02:00"', b'"2026-05-04"', b'"2026-05-04 12:30"'),
    *(b'"2026-05-04T12:30:00.1234567Z"', b'"5/4/2026 2:30:00 PM"', b'"0001-01-01T00:00:00"', b"1777897800"),
    *(b'"CERT-1"', b'"exam-1"', b'"reg-1"', b'"stu-1"', b'"ada@example.org"', b'"completed"', b'"TEST_COMPLETED"'),
    *(b'"candidate ended"', b'"proctor ended"', b'"Terminated"', b"[]", b"{}", b'"  x  "', b'"n/a"', b'"N/A"'),
)
#: Values that none should send, and somebody will.
ODD: Final = (
    *(b"1e400", b"-1e400", b"1e-400", b"1" + b"0" * 400, b"-0", b"-0.0", b"0.1" + b"7" * 300, b"9007199254740993"),
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999999999999",
        b"0x10",
        b"01",
        b"+1",
        b".5",
        b"5.",
        b"1_000",
        b"undefined",
    ),
    *(b'"' + b"9" * 5000 + b'"', b'"1e5000000"', b'"Infinity"', b'"NaN"', b'"-0"', b'"1_000"', b'"\xd9\xa1\xd9\xa2"'),
    *(
        b'"\\ud83d"',
        b'"\\ude00\\ud83d"',
        b'"\\u0000"',
        b'"\\u202e"',
        b'"\\ufeff"',
        b'"\xf0\x9f\x98\x80"',
        b'"\xff\xfe"',
    ),
    *(b'"\xed\xa0\x80"', b'"a\tb\nc"', b'"\\x41"', b"'single'", b'"unended', b'"' + b"\xe2\x84\xaa" * 40 + b'"'),
    *(b'"0000-00-00"', b'"9999-12-31T23:59:59.9999999+14:00"', b'"0001-01-01T00:00:00+02:00"', b'"2026-02-30"'),
    *(
        b'"2026-05-04T24:00:00Z"',
        b'"2026-05-04T23:59:60Z"',
        b'"10000-01-01T00:00:00Z"',
        b'"-0001-01-01"',
        b"253402300800",
    ),
    *(b"-62135596801", b"1e18", b'"2026-05-04T12:30:00+99:99"', b'"2026-W19-1"', b'"now"', b'"=cmd()"', b'"../../x"'),
    *(b'"' + b"x" * 20_000 + b'"', b"[" * 150 + b"]" * 150, b'{"a":' * 250 + b"1" + b"}" * 250, b"[" * 5000),
    *(b"[" * 20_000 + b"]" * 20_000, b"[null]", b"[[]]", b'[{"": {}}]', b'{"":""}', b'{"a":1,"a":2}', b"[1,]", b"{,}"),
)
_Change = tuple[int, int, bytes]


class Mutator:
    """Makes bodies from samples."""

    def __init__(self, samples: Sequence[Sample], seed: object) -> None:
        self._samples = samples
        self._cut = [one for one in samples if one.spans]
        self._random = random.Random(seed)
        self._inside: tuple[Callable[[Sample, Span], _Change], ...] = (
            *(self._plausible, self._plausible, self._plausible, self._odd, self._other, self._gone, self._twice),
            *(self._renamed, self._wrapped, self._as_text),
        )
        self._whole: tuple[Callable[[bytes], bytes], ...] = (
            *(self._encoded, self._cut_short, self._flipped, self._inserted, self._enclosed, self._joined),
        )

    def __call__(self) -> tuple[str, bytes]:
        """A source and a body for it. One in five hundred is nothing but random bytes."""
        chosen = self._random.choice(self._cut if self._random.random() < 0.95 else self._samples)
        if self._random.random() < 0.002:
            return chosen.source, self._random.randbytes(self._random.choice((0, 1, 7, 300, 70_000)))
        text = self._changed(chosen)
        if self._random.random() < 0.15:
            text = self._random.choice(self._whole)(text)
        return chosen.source, text

    def _changed(self, chosen: Sample) -> bytes:
        """With one to four of its values or members changed; those that overlap are left out."""
        if not chosen.spans:
            return chosen.text
        spans = self._random.choices(chosen.spans, k=self._random.choice((1, 1, 1, 2, 2, 3, 4)))
        made = [self._random.choice(self._inside)(chosen, span) for span in spans]
        if self._random.random() < 0.9:  # else it is one more result of the sample's own sitting
            new = b'"%d"' % self._random.randrange(10**9)
            made += [(span.start, span.end, new) for span in chosen.ids]
        changes = sorted(made, reverse=True)
        text, before = chosen.text, len(chosen.text)
        for start, end, instead in changes:
            if end <= before:
                text, before = text[:start] + instead + text[end:], start
        return text

    def _plausible(self, chosen: Sample, _: Span) -> _Change:
        leaf = self._random.choice(chosen.leaves or chosen.spans)
        return leaf.start, leaf.end, self._random.choice(PLAUSIBLE)

    def _odd(self, _: Sample, span: Span) -> _Change:
        return span.start, span.end, self._random.choice(ODD)

    def _other(self, chosen: Sample, span: Span) -> _Change:
        """Some value of some sample, mostly of the same."""
        source = chosen if self._random.random() < 0.7 else self._random.choice(self._cut)
        other = self._random.choice(source.spans)
        return span.start, span.end, source.text[other.start : other.end]

    def _gone(self, chosen: Sample, span: Span) -> _Change:
        """The member is not there. The comma behind it goes as well; before a bracket one is left over."""
        start, end = span.start if span.name is None else span.name, _past(chosen.text, span.end)
        return (start, end + 1, b"") if chosen.text[end : end + 1] == b"," else (start, span.end, b'"x":1')

    def _twice(self, chosen: Sample, span: Span) -> _Change:
        """The member is said twice, mostly with another value."""
        if span.name is None:
            return span.end, span.end, b"," + chosen.text[span.start : span.end]
        values = (chosen.text[span.start : span.end], *self._random.choices(PLAUSIBLE, k=3))
        return span.end, span.end, b"," + chosen.text[span.name : span.start] + self._random.choice(values)

    def _renamed(self, chosen: Sample, span: Span) -> _Change:
        """The name in another spelling: with other case, an escape, a space, or another word."""
        if span.name is None:
            return self._odd(chosen, span)
        end = _match(_STRING, chosen.text, span.name)
        name = chosen.text[span.name + 1 : end - 1]
        spellings = (
            *(name.upper(), name.lower(), name.swapcase(), b" " + name, name + b"\\u0000", name[:-1], name * 40),
            *(b"\\u%04x" % name[0] + name[1:] if name else b"", name.replace(b"i", b"\xc4\xb1"), b"__proto__", b""),
        )
        return span.name, end, b'"' + self._random.choice(spellings) + b'"'

    def _wrapped(self, chosen: Sample, span: Span) -> _Change:
        before, behind = self._random.choice(((b"[", b"]"), (b'{"value":', b"}"), (b"[" * 90, b"]" * 90)))
        return span.start, span.end, before + chosen.text[span.start : span.end] + behind

    def _as_text(self, chosen: Sample, span: Span) -> _Change:
        """The value as a string, a string without its quotation marks."""
        value = chosen.text[span.start : span.end]
        if value.startswith(b'"'):
            return span.start, span.end, value[1:-1]
        return span.start, span.end, b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'

    def _encoded(self, text: bytes) -> bytes:
        coding = self._random.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-7", "cp037"))
        return text.decode("utf-8", "replace").encode(coding, "replace")

    def _cut_short(self, text: bytes) -> bytes:
        return text[: self._random.randrange(len(text) + 1)]

    def _flipped(self, text: bytes) -> bytes:
        changed = bytearray(text)
        for _ in range(self._random.choice((1, 1, 2, 8, 64))):
            if changed:
                changed[self._random.randrange(len(changed))] = self._random.randrange(256)
        return bytes(changed)

    def _inserted(self, text: bytes) -> bytes:
        at = self._random.randrange(len(text) + 1)
        things = (
            b"\0",
            b"\xef\xbb\xbf",
            b"//x\n",
            b"/**/",
            b",",
            b'"',
            b"}",
            b"\r\n\r\n",
            b" " * 3000,
            b"\x1f\x8b\x08",
        )
        return text[:at] + self._random.choice(things) + text[at:]

    def _enclosed(self, text: bytes) -> bytes:
        depth = self._random.choice((1, 2, 120, 1000))
        opening, closing = self._random.choice(((b"[", b"]"), (b'{"data":', b"}")))
        return opening * depth + text + closing * depth

    def _joined(self, text: bytes) -> bytes:
        return text + self._random.choice((b"", b"\n", b",", b"\0")) + self._random.choice(self._samples).text


def packed(body: bytes, how: random.Random) -> bytes:
    """Packed with gzip, sometimes in two members."""
    at = how.randrange(len(body) + 1) if how.random() < 0.2 else len(body)
    return b"".join(gzip.compress(part, 1) for part in (body[:at], body[at:]) if part or not body)
