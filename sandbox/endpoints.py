"""What each endpoint does: those of the Exam Registrations document that somebody here calls.

Synchronous, so that each call is applied at one moment. Knows no HTTP: takes a Call, gives what is answered with 200,
or raises Refused.
"""

import random
import re
from typing import Any

from sandbox.access import issue_token
from sandbox.calls import Call, Refused
from sandbox.options import Fault
from sandbox.patches import TestFailed, patched
from sandbox.registrations import Record, Registration
from sandbox.world import World

BATCH_LIMIT = 100
#: Of the document's filters; an unknown one is 400 (a guess: there is, for one, no filter by student).
_FILTERS: dict[str, type] = {"ids": list, "exam_id": list, "status": list, "email_address": str, "name": str}
#: By the option `cursor`: what comes back as `exclusiveStartKey`.
_KEYS = {"string": r"place~(\d+)", "object": r'\{"key": ?"place~(\d+)"\}'}
Json = dict[str, Any]


def answer(world: World, call: Call) -> Any:
    """Apply the call, at once and wholly."""
    return getattr(Endpoints(world, call), call.kind)()


class Endpoints:
    """One for each kind of call."""

    def __init__(self, world: World, call: Call) -> None:
        self._world, self._options, self._call = world, world.options, call
        self._records = world.registrations.of(call.tenant)

    def token(self) -> Json:
        return issue_token(self._world, self._call)

    def get(self) -> Registration:
        return self._seen(self._record(self._call.ids[0]))

    def patch(self) -> Registration:
        return self._save(*self._planned(self._call.ids[0], self._call.body))

    def delete(self) -> str:
        record = self._writable(self._call.ids[0])
        self._world.registrations.delete(record)
        return record.id

    def student_exam(self) -> Json:
        records = self._world.registrations.by_student_exam(self._call.tenant, *self._call.ids)
        if not records and self._options.nothing_found == "404":
            raise Refused(404, "Unable to locate records")
        page = self._page(records, {})
        return {"Count": len(page["Items"]), **page}

    def search(self) -> Json:
        body = self._call.body
        if not isinstance(body, dict) or not all(isinstance(body[name], _FILTERS.get(name, ())) for name in body):
            raise Refused(400, "a filter is not valid")
        named = dict.fromkeys(self._call.ids) if "ids" in body else self._records
        filters = {name: wanted for name, wanted in body.items() if name != "ids"}
        return self._page([self._records[name] for name in named if name in self._records], filters)

    def batch(self) -> Json:
        """ "Up to 100 parallel operations": 200 even if all failed. What is in `results` is a guess."""
        operations = self._call.body.get("operations") if isinstance(self._call.body, dict) else None
        if not isinstance(operations, list) or len(operations) > BATCH_LIMIT:
            raise Refused(400, f"operations is not an array of at most {BATCH_LIMIT}")
        if self._options.batch_refuses_whole:
            self._rehearse(operations)
        order = list(range(len(operations)))
        if self._options.batch_order == "shuffled":
            random.shuffle(order)
        done = {place: self._item(operations[place]) for place in order}
        failed = sum("error" in item for item in done.values())
        results = _results(done, self._options.batch_results)
        return {"success_count": len(done) - failed, "error_count": failed, "results": results}

    def _record(self, name: str) -> Record:
        if name not in self._records:
            raise Refused(404, "The exam registration could not be found")
        return self._records[name]

    def _writable(self, name: str) -> Record:
        record = self._record(name)
        if record.current.get("sys_locked"):
            raise Refused(403, "The exam registration is locked")
        return record

    def _fault(self, record: Record, action: str) -> Fault | None:
        return self._world.fault(self._call, (record.id,), action)

    def _seen(self, record: Record) -> Registration:
        """What a read sees of it: the truth, or, with a fault, the version before the last change."""
        if record.previous is None or self._call.query.get("consistentRead") == "true":
            return record.current
        return record.previous if self._fault(record, "stale") else record.current

    def _planned(self, name: str, directives: Any) -> tuple[Record, Registration]:
        """A record, and what a patch would make of it."""
        record = self._writable(name)
        return record, patched(record.current, directives, self._options)

    def _save(self, record: Record, after: Registration) -> Registration:
        altered = self._fault(record, "alter")
        return self._world.registrations.save(
            record, after | altered.fields if altered else after, "api", self._call.kind
        )

    def _page(self, records: list[Record], filters: Json) -> Json:
        """The page that the call asks for; its key is the place of the next one's first record."""
        size, start, how = self._options.page_size, self._start(), self._options.search_text
        rest = [(place, self._seen(record)) for place, record in enumerate(records[start:], start)]
        if not self._options.sparse_pages:  # filtered first, then cut
            rest = [(place, seen) for place, seen in rest if _fits(seen, filters, how)]
        page: Json = {"Items": [seen for _, seen in rest[:size] if _fits(seen, filters, how)]}
        if len(rest) > size:
            key = f"place~{rest[size][0]}"
            page["LastEvaluatedKey"] = {"key": key} if self._options.cursor == "object" else key
        return page

    def _start(self) -> int:
        """The place in a key of ours."""
        if "exclusiveStartKey" not in self._call.query:
            return 0
        match = re.fullmatch(_KEYS[self._options.cursor], self._call.query["exclusiveStartKey"])
        if match is None:
            raise Refused(400, "exclusiveStartKey is not valid")
        return int(match[1])

    def _rehearse(self, operations: list[Any]) -> None:
        """Refuse the whole for an invalid item; a guard, an unknown or a locked registration is its own error."""
        for operation in operations:
            try:
                self._planned_item(operation)
            except Refused as refused:
                if refused.status == 400 and not isinstance(refused, TestFailed):
                    raise

    def _planned_item(self, operation: Any) -> tuple[Record, Registration]:
        match operation:
            case {"id": str(name), "operation": "patch", "patch_directives": directives}:
                if self._options.batch_requires_object and not isinstance(operation.get("object"), dict):
                    raise Refused(400, "an operation needs an object")
                return self._planned(name, directives)
        raise Refused(400, "an operation needs an id, is patch, and has directives")

    def _item(self, operation: Any) -> Json:
        name = operation.get("id") if isinstance(operation, dict) else None
        try:
            record, after = self._planned_item(operation)
            if fault := self._fault(record, "item_error"):
                return {"id": name, "success": False, "status_code": fault.status, "error": fault.body}
            return {"id": name, "success": True, "status_code": 200, "item": self._save(record, after)}
        except Refused as refused:
            return {"id": name, "success": False, "status_code": refused.status, "error": refused.body}


def _fits(registration: Registration, filters: Json, search_text: str) -> bool:
    return all(_matches(registration.get(name), wanted, search_text) for name, wanted in filters.items())


def _matches(value: Any, wanted: Any, search_text: str) -> bool:
    if isinstance(wanted, list):
        return value in wanted
    if search_text == "exact":
        return bool(value == wanted)
    text, wanted = str(value).casefold(), wanted.casefold()
    return wanted in text if search_text == "contains" else wanted == text


def _results(done: dict[int, Json], shape: str) -> list[Json]:
    match shape:
        case "by_index":
            shown = ("success", "status_code", "error")
            return [{name: done[place][name] for name in shown if name in done[place]} for place in sorted(done)]
        case "bare":
            return [item.get("item") or {"id": item["id"], **item["error"]} for item in done.values()]
    return [] if shape == "opaque" else list(done.values())
