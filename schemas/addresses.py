"""E-mail addresses: when two are the same, and how one may be spelled.

Case does not count, and é as one character equals é as e with an accent (Unicode NFC). A character that only looks like
an ASCII letter, or becomes one (the Kelvin sign, a long s, a dotless i), is another letter: otherwise a person could be
taken for somebody else by typing such an address (as in CVE-2019-19844).
"""

import re
import unicodedata
from typing import Final, Literal

#: All characters but the three that NFC would turn into ASCII: the Greek question mark and varia, the Kelvin sign.
_NORMALISED: Final = re.compile("[^\u037e\u1fef\u212a]+")


def folded(address: str) -> str:
    """The form in which addresses are compared. Folding it again changes nothing."""
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
