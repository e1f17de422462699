"""The registrations of all tenants: versions, history of changes, and the letters that a change sends.

A stored registration is never changed in place, so the version before the last change is kept by keeping a reference.
"""

import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

Registration = dict[str, Any]

#: A change of status to one of these sends a letter (vendor-behaviour 4.3: pass_letter_id, fail_letter_id).
_LETTERED = ("passed", "failed")
_STAMPS = ("sys_version", "sys_last_modified_at", "sys_last_modified_by_id")


@dataclass(slots=True)
class Record:
    """One registration over time; `previous` is the version before the last change."""

    tenant: str
    id: str
    current: Registration
    previous: Registration | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


class Registrations:
    """All of them, in the order in which they came; `writes` counts what was ever added to a history."""

    def __init__(self) -> None:
        self.letters: list[dict[str, Any]] = []
        self.writes = 0
        self._records: dict[str, dict[str, Record]] = defaultdict(dict)
        self._by_student_exam: dict[tuple[str, Any, Any], dict[str, Record]] = defaultdict(dict)

    def kept(self) -> dict[str, Any]:
        """All of it as JSON has it, but for the versions before."""
        records = [asdict(replace(one, previous=None)) for those in self._records.values() for one in those.values()]
        return {"writes": self.writes, "letters": self.letters, "records": records}

    def take(self, kept: dict[str, Any]) -> None:
        """What an earlier process kept."""
        self.writes, self.letters = kept["writes"], kept["letters"]
        for members in kept["records"]:
            record = Record(**members)
            self.of(record.tenant)[record.id] = self._like(record)[record.id] = record

    def of(self, tenant: str) -> dict[str, Record]:
        return self._records[tenant]

    def by_student_exam(self, tenant: str, student_id: str, exam_id: str) -> list[Record]:
        return list(self._by_student_exam[tenant, student_id, exam_id].values())

    def seed(self, tenant: str, given: Registration) -> None:
        """Add a registration without history or letter."""
        if given["id"] in self.of(tenant):
            self.delete(self.of(tenant)[given["id"]])
        stamps = dict(zip(_STAMPS, (1, _text(time.time()), "seed"), strict=True))
        record = Record(tenant, given["id"], {"status": "registered", **stamps, **given})
        self.of(tenant)[record.id] = self._like(record)[record.id] = record

    def save(self, record: Record, after: Registration, by: str, operation: str) -> Registration:
        """Store a new version, even an equal one: `sys_version` counts writes."""
        before, now, version = record.current, time.time(), record.current["sys_version"] + 1
        after = after | dict(zip(_STAMPS, (version, _text(now), by), strict=True))
        changes = _changes(before, after)
        write = {"at": now, "by": by, "operation": operation, "sys_version": version, "changes": changes}
        record.history.append(write)
        self.writes += 1
        if "status" in changes and after.get("status") in _LETTERED:
            letter = {"tenant": record.tenant, "registration": record.id, "status": after["status"]}
            self.letters.append(letter | {"at": now, "sys_version": version})
        del self._like(record)[record.id]
        record.previous, record.current = before, after
        self._like(record)[record.id] = record
        return after

    def delete(self, record: Record) -> None:
        del self.of(record.tenant)[record.id], self._like(record)[record.id]

    def _like(self, record: Record) -> dict[str, Record]:
        """Those of the same student and exam."""
        return self._by_student_exam[record.tenant, record.current.get("student_id"), record.current.get("exam_id")]


def _text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _changes(before: Registration, after: Registration) -> dict[str, list[Any]]:
    """Member -> [old, new]; the stamps of each write are left out."""
    changed = {name: [before.get(name), value] for name, value in after.items() if before.get(name) != value}
    removed = {name: [value, None] for name, value in before.items() if name not in after}
    return {name: pair for name, pair in (changed | removed).items() if name not in _STAMPS}
