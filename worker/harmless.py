"""Text from outside, made harmless where people look at it: nothing in it is hidden, turned around, or calculated.

What is shown in another way is still shown. JSON stays exact.
"""

import re
import unicodedata
from typing import Final

#: Categories of characters that are invisible or steer the text around them (Unicode, chapter 4.5).
_HIDDEN: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
#: Of other categories, and invisible all the same: fillers, blanks and variation selectors.
_BLANK: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
#: How a cell begins that a spreadsheet calculates (OWASP, "CSV Injection"); a number is none.
_FORMULA: Final = re.compile(r"\s*[=+\-@＝＋－＠](?![\d.,:%\s]*$)")


def harmless(text: str, kept: str = "") -> str:
    """The text with each such character written as its number, `⟨U+202E⟩`; those in `kept` stay as they are."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one in kept or not _is_hidden(one) else f"⟨U+{ord(one):04X}⟩" for one in text)


def cell(text: str) -> str:
    """The same for a cell of a table, which is one line. In front of a formula stands an apostrophe."""
    return ("'" if _FORMULA.match(text) else "") + harmless(text)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN or bool(_BLANK.match(character))
