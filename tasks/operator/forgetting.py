"""Finding what the ledger holds of one person: by their names, and by searching what has none, in the usual encodings.

Of what is searched only an id that was given, as a whole word, shows whose it is. Anything less a person must decide.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

from tasks.operator.steering import Chosen
from worker.bootstrap import Services
from worker.encodings import readings
from worker.ledger import strays, trace
from worker.ledger.sealed import SealBroken, SealUnknown

#: A shorter id stands in too many bodies by chance.
_SHORTEST: Final = 4
_PERHAPS: Final = "an id stands there in a longer word, or is too short to tell"
_UNREAD: Final = "it is not read yet: give the command again in a minute"


def search(
    at: Services, tenants: Sequence[str], ids: Sequence[str]
) -> tuple[list[Chosen], list[Chosen], dict[Chosen, str]]:
    """What has a person's names, what was found by searching, and what may be theirs, with why that is not decided.

    `ids`: what the person is known by. Strays belong to no tenant, and are searched each time.
    """
    named, searched, undecided = list[Chosen](), list[Chosen](), dict[Chosen, str]()
    for tenant in tenants:
        each = (trace.of_candidate(at.redis, tenant, trace.name_of(at.identity, tenant, id)) for id in ids)
        named += [Chosen(tenant, event) for event in dict.fromkeys(chain.from_iterable(each))]
    for one, about, sealed, unless in _nameless(at, tenants):
        try:
            texts = readings(at.ledger.sealer.open(sealed, about))
        except (SealUnknown, SealBroken) as error:
            undecided[one] = f"it cannot be opened: {error.args[0]}"
            continue
        long = [id for id in ids if len(id) >= _SHORTEST]
        if _stands(map(_word, long), texts) and not unless:
            searched.append(one)
        elif _stands([*map(re.escape, long), *map(_word, ids)], texts):
            undecided[one] = unless or _PERHAPS
    return named, searched, undecided


def _nameless(at: Services, tenants: Sequence[str]) -> Iterator[tuple[Chosen, str, bytes, str]]:
    """What has no names; what its content is sealed for, that content, and what it has to wait for."""
    for tenant in tenants:
        for id, sealed, unread in trace.nameless(at.redis, tenant):
            yield Chosen(tenant, id), id, sealed, _UNREAD if unread else ""
    yield from ((Chosen("", id), about, sealed, "") for id, about, sealed in strays.contents(at.redis))


def _word(id: str) -> str:
    return rf"(?<![\w.@+-]){re.escape(id)}(?![\w@+-]|\.\w)"


def _stands(expressions: Iterable[str], texts: set[str]) -> bool:
    return any(re.search(one, text, re.IGNORECASE) for one in expressions for text in texts)
