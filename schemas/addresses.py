"""E-mail addresses: when two of them are one, and how one may be spelled.

Upper and lower case are one, and so are é as one character and é as e with an accent (Unicode NFC). Nothing else is: a
character that only looks like an ASCII letter, or becomes one (the Kelvin sign, a long s, a dotless i), is another
letter, or whoever types his own address could be taken for somebody else (CVE-2019-19844 was such a case).
"""

import re
import unicodedata
from typing import Final, Literal

#: All but the three characters that normalising would turn into ASCII: the Greek question mark and varia, the Kelvin
#: sign.
_NORMALISED: Final = re.compile("[^\u037e\u1fef\u212a]+")


def folded(address: str) -> str:
    """The address as addresses are compared. Folding it again changes nothing."""
    address = address.strip()
    if address.isascii():
        return address.lower()
    return _in_form("NFC", "".join(map(_lower, address)))


def spellings(address: str) -> list[str]:
    """The address as Rhythm may have it, each spelling once: as given, folded, and decomposed. At most three."""
    small = folded(address)
    return list(dict.fromkeys((address.strip(), small, _in_form("NFD", small))))


def _lower(character: str) -> str:
    lower = character.lower()
    return lower if lower.isascii() == character.isascii() else character


def _in_form(form: Literal["NFC", "NFD"], text: str) -> str:
    return _NORMALISED.sub(lambda run: unicodedata.normalize(form, run[0]), text)
