"""The registrations of one tenant: versions, history of changes, and the letters that a change sends.

A stored registration is never changed in place, so the version before the last change is kept by keeping a reference.
Must not know calls, options or faults.
"""

import secrets
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sandbox.fields import Registration

INDEXED = ("student_id", "exam_id", "exam_offering_id", "course_registration_id", "application_id")
#: A change of status to one of these sends a letter (vendor-behaviour 4.3: pass_letter_id, fail_letter_id).
LETTERED = ("passed", "failed")
_STAMPS = ("sys_version", "sys_last_modified_at", "sys_last_modified_by_id")


@dataclass(slots=True)
class Record:
    """One registration over time; `current` is None once deleted, `previous` is the version before the last change."""

    id: str
    place: int
    current: Registration | None = None
    previous: Registration | None = None
    changed_at: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Registrations:
    """All of one tenant, in the order of creation."""

    def __init__(self, tenant: str, letters: list[dict[str, Any]]) -> None:
        self.tenant, self.letters, self.writes = tenant, letters, 0
        self.records: dict[str, Record] = {}
        self._index: dict[tuple[str, Any], dict[str, Record]] = defaultdict(dict)

    def all(self) -> list[Record]:
        return [record for record in self.records.values() if record.current is not None]

    def named(self, ids: Iterable[str]) -> list[Record]:
        known = {name: self.records[name] for name in ids if name in self.records}
        return sorted((record for record in known.values() if record.current is not None), key=_place)

    def where(self, **values: str) -> list[Record]:
        """Registrations whose indexed members are equal to these."""
        first, *rest = [self._index.get((name, value), {}) for name, value in values.items()]
        return sorted((record for name, record in first.items() if all(name in other for other in rest)), key=_place)

    def seed(self, given: Registration) -> None:
        """Put one there as if it always had been: no history, no letter; what is required is filled in."""
        now, name = instant(time.time()), given.get("id") or secrets.token_hex(12)
        made = {
            "id": name, "name": "Jo Example", "exam_id": "exam-1", "exam_offering_id": "offering-1",
            "student_id": "student-1", "date": "2026-01-01T00:00:00Z", "status": "registered", "sys_version": 1,
            "sys_created_at": now, "sys_last_modified_at": now, "sys_created_by_id": "seed",
            "sys_last_modified_by_id": "seed",
        } | given  # fmt: skip
        record = self.records.setdefault(name, Record(name, len(self.records)))
        self._index_anew(record, record.current or {}, made)
        record.current, record.previous, record.history = made, None, []

    def create(self, given: Registration, operation: str) -> Registration:
        """A new registration with a generated id."""
        record = Record(secrets.token_hex(12), len(self.records))
        self.records[record.id] = record
        made = given | {"id": record.id, "sys_created_at": instant(time.time()), "sys_created_by_id": "api"}
        return self.save(record, made, "api", operation)

    def save(self, record: Record, after: Registration, by: str, operation: str) -> Registration:
        """Store a new version, even an equal one: `sys_version` counts writes."""
        before, now = record.current or {}, time.time()
        version = before.get("sys_version", 0) + 1
        after = after | dict(zip(_STAMPS, (version, instant(now), by), strict=True))
        changes = _changes(before, after)
        self._note(record, changes, at=now, by=by, operation=operation, sys_version=version)
        if before and "status" in changes and after.get("status") in LETTERED:
            self.send_letter(after)
        self._index_anew(record, before, after)
        record.previous, record.current, record.changed_at = record.current, after, now
        return after

    def delete(self, record: Record) -> None:
        before = record.current or {}
        self._note(record, {}, at=time.time(), by="api", operation="delete", sys_version=before.get("sys_version"))
        self._index_anew(record, before, {})
        record.current = None

    def send_letter(self, registration: Registration, notice: str | None = None) -> None:
        letter = {"tenant": self.tenant, "registration": registration["id"], "status": registration.get("status")}
        self.letters.append(letter | {"at": time.time(), "sys_version": registration["sys_version"], "notice": notice})

    def _note(self, record: Record, changes: Registration, **write: Any) -> None:
        self.writes += 1
        record.history.append(write | {"changes": changes})

    def _index_anew(self, record: Record, before: Registration, after: Registration) -> None:
        for name in INDEXED:
            if before.get(name) != after.get(name):
                self._index[name, before.get(name)].pop(record.id, None)
                self._index[name, after.get(name)][record.id] = record


def _place(record: Record) -> int:
    return record.place


def _changes(before: Registration, after: Registration) -> dict[str, list[Any]]:
    """Member -> [old, new]; the stamps of each write are left out."""
    changed = {name: [before.get(name), value] for name, value in after.items() if before.get(name) != value}
    removed = {name: [value, None] for name, value in before.items() if name not in after}
    return {name: pair for name, pair in (changed | removed).items() if name not in _STAMPS}
