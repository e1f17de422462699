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
from worker.ledger.work import Intent
from worker.ledger.written import remembered

_PART: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Written:
    """What an event has written to its registration, or is about to."""

    registration: str
    #: By Rhythm's field name, as JSON values. None: another event has written there since, or they were erased.
    values: dict[str, Any] | None
    #: When Rhythm was seen to show them. None while `pending`.
    at: datetime | None
    #: On top of which `sys_version`. None: not kept, or nothing was written because Rhythm said it already.
    base: int | None
    #: The newest version of the registration that was seen.
    sys_version: int | None
    #: The event that wrote there last.
    event: str | None
    #: `written` or `unchanged`.
    result: str | None
    #: About to be written; or it was, and the answer was lost: the next try begins by reading.
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
    return _printable(text)


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


def _printable(text: str) -> str:
    """Without what would steer a terminal."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def words(at: Services, tenant: str, id: str, by: str) -> str | None:
    """Rhythm's own words for why it stands where it does, as far as there are any. Raises SealUnknown, SealBroken."""
    kept = at.ledger.words(tenant, id) if at.ledger.note_look(tenant, id, by, "words") else None
    return None if kept is None else _printable(kept)


def written(at: Services, tenant: str, id: str, by: str = "") -> Written | None:
    """What it wrote or is about to write; None when that is nothing. Raises SealUnknown, SealBroken.

    Without `by` the caller has noted the look.
    """
    event = queries.event(at.redis, tenant, id)
    if event is None or event.registration is None:
        return None
    if by:
        at.ledger.note_look(tenant, id, by, "written")
    kept = remembered(at.redis, at.ledger.sealer, tenant, [event.registration])[event.registration]
    work = at.ledger.look(tenant, id)
    if work and work.intent:
        return _intended(work.intent, kept.sys_version, kept.event)
    if event.result is None:
        return None
    settled = [line.at for line in event.history if line.move == "settle"]
    ours = kept.event == id
    return Written(
        event.registration,
        kept.values if ours else None,
        settled[-1] if settled else None,
        int(kept.base) if ours and kept.base else None,
        kept.sys_version,
        kept.event,
        event.result,
        accepted=kept.accepted if ours else None,
    )


def _intended(intent: Intent, seen: int | None, writer: str | None) -> Written:
    base = None if intent.base is None else int(intent.base)
    return Written(intent.registration, json.loads(intent.values), None, base, seen, writer, None, pending=True)
