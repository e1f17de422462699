"""What each endpoint of the Exam Registrations document does, and the world it does it to.

Synchronous, so that each call is applied at one moment. Knows no HTTP: takes a Call, gives a Reply or raises Refused.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from sandbox.admission import Pace, Tokens
from sandbox.calls import Call, CallLog, Kind, Refused, Reply
from sandbox.faults import Faults
from sandbox.fields import PROTECTED, Registration, TestFailed, check, patched
from sandbox.options import Options
from sandbox.registrations import Record, Registrations, instant
from sandbox.search import Filter, filters, page

BATCH_LIMIT = 100
_LOOKUPS: dict[Kind, tuple[str, ...]] = {
    "student": ("student_id",), "exam": ("exam_id",), "exam_offering": ("exam_offering_id",),
    "student_exam": ("student_id", "exam_id"), "course_registration": ("course_registration_id",),
    "application": ("application_id",),
}  # fmt: skip


class World:
    """Everything the stand-in holds; a reset is a new one, so that what is still under way touches only the old."""

    def __init__(self) -> None:
        self.options, self.faults, self.tokens, self.pace, self.log = Options(), Faults(), Tokens(), Pace(), CallLog()
        self.letters: list[dict[str, Any]] = []
        self.tenants: dict[str, Registrations] = {}
        self.random = random.Random(0)

    def of(self, tenant: str) -> Registrations:
        return self.tenants.setdefault(tenant, Registrations(tenant, self.letters))


class Endpoints:
    """The endpoints, for one call; each gives what is answered with 200, or raises Refused."""

    def __init__(self, world: World, call: Call) -> None:
        self.world, self.call, self.options, self.tenant = world, call, world.options, world.of(call.tenant)

    def create(self) -> Registration:
        """ "If an ID is specified for the exam registration, an error will be thrown." """
        given = self._body()
        if "id" in given:
            raise Refused(400, "an id cannot be given")
        check(given, self.options)
        return self.tenant.create(given, self.call.kind)

    def get(self) -> Registration:
        record, _ = self._found(self.call.parts[0])
        return self._selected(self._seen(record))

    def put(self) -> Registration:
        """Replaces the whole; Rhythm's own members are kept, whatever the body says."""
        record, current = self._writable(self.call.parts[0])
        given = self._body("id")
        if given["id"] != record.id:
            raise Refused(400, "the id is not that of the path")
        check(given, self.options)
        return self._save(record, given | {name: current[name] for name in (*PROTECTED, "sys_created_by_id")})

    def patch(self) -> Registration:
        record, current = self._writable(self.call.parts[0])
        return self._save(record, patched(current, self.call.body, self.options))

    def delete(self) -> str:
        record, _ = self._writable(self.call.parts[0])
        self.tenant.delete(record)
        return record.id

    def list_all(self) -> Any:
        """The document's sample is a bare array, which has no room for a `LastEvaluatedKey`: so it is never cut."""
        if self.options.list_shape == "array":
            return [self._selected(self._seen(record)) for record in self.tenant.all()]
        return self._page(self.tenant.all())

    def lookup(self) -> dict[str, Any]:
        records = self.tenant.where(**dict(zip(_LOOKUPS[self.call.kind], self.call.parts, strict=True)))
        if not records and self.options.nothing_found == "404":
            raise Refused(404, "Unable to locate records")
        return self._page(records)

    def search(self) -> dict[str, Any]:
        conditions = filters(self.call.body, self.options)
        records = self.tenant.named(self.call.ids) if "ids" in self.call.body else self.tenant.all()
        found = self._page(records, conditions)
        del found["Count"]  # the document's sample of a search has none
        return found

    def batch(self) -> dict[str, Any]:
        """ "Up to 100 parallel patch/delete operations": 200 even if all failed. What is in `results` is a guess."""
        operations = self._body().get("operations")
        if not isinstance(operations, list) or len(operations) > BATCH_LIMIT:
            raise Refused(400, f"operations is not an array of at most {BATCH_LIMIT}")
        if self.options.batch_refuses_whole:
            self._rehearse(operations)
        order = list(range(len(operations)))
        if self.options.batch_order == "shuffled":
            self.world.random.shuffle(order)
        done = {index: self._item(operations[index]) for index in order}
        failed = sum("error" in item for item in done.values())
        results = _results(done, self.options)
        return {"success_count": len(done) - failed, "error_count": failed, "results": results}

    def generate_order(self) -> Any:
        self._found(self._body("id")["id"])
        return {}

    def preview_email(self) -> Any:
        self._found(self._body("destination_email_address", "registration_id")["registration_id"])
        return {}

    def send_notice(self) -> Any:
        _, current = self._found(self.call.parts[0])
        self.tenant.send_letter(current, notice=self.call.parts[1])
        return {}

    def generate_registration(self) -> Registration:
        """A draft for the contact; which exam a process is for is not in the document, so its name is made up."""
        process, contact = self.call.parts
        if contact not in (self.options.known_student_ids or (contact,)):
            raise Refused(404, "The resource could not be found")
        made = {
            "process_id": process, "student_id": contact, "name": contact, "exam_id": f"exam-of-{process}",
            "exam_offering_id": f"offering-of-{process}", "date": instant(self.call.at), "status": "draft",
        }  # fmt: skip
        return self.tenant.create(made, self.call.kind)

    def token(self) -> dict[str, Any]:
        return self.world.tokens.issue(self.options, self.call)

    def _found(self, registration_id: str) -> tuple[Record, Registration]:
        record = self.tenant.records.get(registration_id)
        if record is None or record.current is None:
            raise Refused(404, "The exam registration could not be found")
        return record, record.current

    def _writable(self, registration_id: str) -> tuple[Record, Registration]:
        record, current = self._found(registration_id)
        if current.get("sys_locked"):
            raise Refused(self.options.locked_status, "The exam registration is locked")
        return record, current

    def _seen(self, record: Record) -> Registration:
        """What this call sees of a record: the truth, or, with a fault, the version before the last change."""
        assert record.current is not None
        if record.previous is None or self.call.query.get("consistentRead", "").lower() == "true":
            return record.current
        fault = self.world.faults.of_record("stale", self.call, record.id)
        is_stale = fault is not None and (time.time() - record.changed_at) * 1000 <= fault.within_ms
        return record.previous if is_stale else record.current

    def _selected(self, registration: Registration) -> Registration:
        fields = self.call.query.get("fieldsToReturn" if self.call.kind == "search" else "fields")
        if not fields:
            return registration
        return {name: registration[name] for name in fields.split(",") if name in registration}

    def _body(self, *texts: str) -> Registration:
        """The body, which must be an object with these members."""
        body = self.call.body
        if not isinstance(body, dict) or not all(isinstance(body.get(name), str) for name in texts):
            raise Refused(400, f"the body is not an object with {', '.join(texts) or 'members'}")
        return body

    def _page(self, records: list[Record], conditions: Sequence[Filter] = ()) -> dict[str, Any]:
        items, key = page(records, conditions, self._seen, self.call.query.get("exclusiveStartKey"), self.options)
        found: dict[str, Any] = {"Count": len(items), "Items": [self._selected(item) for item in items]}
        return found if key is None else found | {"LastEvaluatedKey": key}

    def _save(self, record: Record, after: Registration) -> Registration:
        fault = self.world.faults.of_record("alter", self.call, record.id)
        return self.tenant.save(record, after | fault.fields if fault else after, "api", self.call.kind)

    def _rehearse(self, operations: list[Any]) -> None:
        """Refuse the whole for an invalid item; a guard, an unknown or a locked registration is its own error."""
        for operation in operations:
            try:
                self._planned(operation)
            except Refused as refused:
                if refused.reply.status == 400 and not isinstance(refused, TestFailed):
                    raise

    def _planned(self, operation: Any) -> tuple[Record, Registration | None]:
        """The record of an operation and what it would become, None when deleted."""
        match operation:
            case {"id": str()} if self.options.batch_requires_object and not isinstance(operation.get("object"), dict):
                raise Refused(400, "an operation needs an object")
            case {"id": str(name), "operation": "delete" | "patch" as what}:
                record, current = self._writable(name)
                directives = operation.get("patch_directives")
                return record, None if what == "delete" else patched(current, directives, self.options)
        raise Refused(400, "an operation needs an id, and is patch or delete")

    def _item(self, operation: Any) -> dict[str, Any]:
        name = operation.get("id") if isinstance(operation, dict) else None
        try:
            record, after = self._planned(operation)
            if (fault := self.world.faults.of_record("item_error", self.call, record.id)) is not None:
                return {"id": name, "success": False, "status_code": fault.status, "error": fault.body}
            if after is None:
                self.tenant.delete(record)
            item = {"id": name} if after is None else self._save(record, after)
        except Refused as refused:
            return {"id": name, "success": False, "status_code": refused.reply.status, "error": refused.reply.body}
        return {"id": name, "success": True, "status_code": 200, "item": item}


def _results(done: dict[int, dict[str, Any]], options: Options) -> list[dict[str, Any]]:
    match options.batch_results:
        case "by_index":
            shown = ("success", "status_code", "error")
            return [{name: done[index][name] for name in shown if name in done[index]} for index in sorted(done)]
        case "bare":
            return [item.get("item") or {"id": item["id"], **item["error"]} for item in done.values()]
    return [] if options.batch_results == "opaque" else list(done.values())


_ENDPOINTS: dict[Kind, Callable[[Endpoints], Any]] = {
    "create": Endpoints.create, "list": Endpoints.list_all, "get": Endpoints.get, "put": Endpoints.put,
    "patch": Endpoints.patch, "delete": Endpoints.delete, "search": Endpoints.search, "batch": Endpoints.batch,
    **dict.fromkeys(_LOOKUPS, Endpoints.lookup), "generate_order": Endpoints.generate_order,
    "generate_registration": Endpoints.generate_registration, "send_notice": Endpoints.send_notice,
    "preview_email": Endpoints.preview_email, "token": Endpoints.token,
}  # fmt: skip


def answer(world: World, call: Call) -> Reply:
    """Apply the call, at once and wholly; raises Refused."""
    return Reply(200, _ENDPOINTS[call.kind](Endpoints(world, call)))
