"""What is personal of an event, for whoever asks: what came in, what was written, what Rhythm said.

Each look is noted in the event's history before anything is shown: who, and at what.
"""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from worker.bootstrap import Services
from worker.ledger import queries
from worker.ledger.written import remembered

_PART: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass(frozen=True)
class Written:
    """What an event has written to its registration, or is about to (`pending`: or the answer was lost)."""

    registration: str
    #: By Rhythm's field name, as JSON values. None: another event has written there since, or they were erased.
    values: dict[str, Any] | None
    #: When Rhythm was seen to show them.
    at: datetime | None
    #: On top of which `sys_version`, if any was; and the newest that was seen.
    base: int | None
    sys_version: int | None
    #: The event that wrote there last.
    event: str | None
    #: `written` or `unchanged`; None while pending.
    result: str | None
    pending: bool = False
    #: A person's change that an operator has accepted since: `values`, `by`, `at`.
    accepted: dict[str, Any] | None = None


def payload(at: Services, tenant: str, id: str, by: str) -> str | None:
    """The body as it came, JSON indented. None: it is not kept any more. Raises SealUnknown, SealBroken."""
    body = at.ledger.payload(tenant, id) if at.ledger.note_look(tenant, id, by, "payload") else None
    if body is None:
        return None
    text = body.decode(json.detect_encoding(body), "replace")
    with suppress(ValueError, RecursionError):
        json.loads(text)
        text = _indented(text)
    return text


def _indented(text: str) -> str:
    """JSON with a line for each member. Reading and writing it would lose a member that is there twice, and 82.50."""
    parts, depth, before = list[str](), 0, ""
    for part in _PART.findall(text):
        closes = part in ("}", "]")
        depth -= closes
        if before in ("{", "[", ",") if not closes else before not in ("{", "["):
            parts.append("\n" + "  " * depth)
        parts.append(": " if part == ":" else part)
        depth += part in ("{", "[")
        before = part
    return "".join(parts)


def words(at: Services, tenant: str, id: str, by: str) -> str | None:
    """Rhythm's own words for why it stands where it does, as far as there are any. Raises SealUnknown, SealBroken."""
    return at.ledger.words(tenant, id) if at.ledger.note_look(tenant, id, by, "words") else None


def written(at: Services, tenant: str, id: str, by: str = "") -> Written | None:
    """What it wrote or is about to write; None when that is nothing. Raises SealUnknown, SealBroken.

    Without `by` the caller has noted the look.
    """
    event, work = queries.event(at.redis, tenant, id), at.ledger.look(tenant, id)
    if event is None or work is None or event.registration is None:
        return None
    if by:
        at.ledger.note_look(tenant, id, by, "written")
    kept = remembered(at.redis, at.ledger.sealer, tenant, [event.registration])[event.registration]
    if intent := work.intent:
        values, base = json.loads(intent.values), int(intent.base) if intent.base else None
        return Written(intent.registration, values, None, base, kept.sys_version, kept.event, None, pending=True)
    if event.result is None:
        return None
    settled = next((line.at for line in event.history if line.move == "settle"), None)
    if kept.event != id:
        return Written(event.registration, None, settled, None, kept.sys_version, kept.event, event.result)
    base = int(kept.base) if kept.base else None
    return Written(
        event.registration, kept.values, settled, base, kept.sys_version, id, event.result, accepted=kept.accepted
    )
