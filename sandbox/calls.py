"""One call to the stand-in: which endpoint it names and what it carries; and the log of all calls.

Knows the paths of the Exam Registrations document; must not decide what a call does.
"""

import json
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

Kind = Literal[
    "create", "list", "get", "put", "patch", "delete", "search", "batch", "student", "exam", "exam_offering",
    "student_exam", "course_registration", "application", "generate_order", "generate_registration", "send_notice",
    "preview_email", "token", "unknown",
]  # fmt: skip
#: (method, word after the tenant, number of path parameters after the word) -> kind.
_BY_WORD: dict[tuple[str, str, int], Kind] = {
    ("POST", "search", 0): "search", ("POST", "batch", 0): "batch",
    ("POST", "generateOrder", 0): "generate_order", ("POST", "generateRegistration", 2): "generate_registration",
    ("POST", "sendNotice", 2): "send_notice", ("POST", "previewEmail", 0): "preview_email",
    ("GET", "student", 1): "student", ("GET", "exam", 1): "exam", ("GET", "examOffering", 1): "exam_offering",
    ("GET", "studentExam", 2): "student_exam", ("GET", "courseRegistration", 1): "course_registration",
    ("GET", "application", 1): "application",
}  # fmt: skip
_ON_ALL: dict[str, Kind] = {"POST": "create", "GET": "list"}
_ON_ONE: dict[str, Kind] = {"GET": "get", "PUT": "put", "PATCH": "patch", "DELETE": "delete"}
LOG_SIZE = 50_000


def _not_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


#: Strict: Python's own decoder would let NaN and Infinity in.
decode = json.JSONDecoder(parse_constant=_not_json).decode
encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(slots=True, frozen=True)
class Reply:
    """What is answered; `body` is encoded as JSON."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """The call, or an item of a batch, is answered with an error; its body is a guess, the document gives none."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reply = Reply(status, {"message": message}, headers or {})


@dataclass(slots=True)
class Call:
    """A request as the endpoints see it. `ids` are the registrations (or other ids) it names in path or body."""

    at: float
    method: str
    path: str
    query: dict[str, str]
    authorization: str
    raw: bytes
    kind: Kind = "unknown"
    tenant: str = ""
    parts: tuple[str, ...] = ()
    body: Any = None
    ids: tuple[str, ...] = ()
    #: The fault that was played on it.
    fault: str | None = None


def parse(at: float, method: str, raw_path: str, query: str, authorization: str, raw: bytes) -> Call:
    """The call that a request names. A body that is not JSON is None."""
    path = f"{raw_path}?{query}" if query else raw_path
    call = Call(at, method, path, dict(parse_qsl(query)) if query else {}, authorization, raw)
    # Segments are decoded one by one: an id may hold `|`, `:` or `%2F`.
    call.kind, call.tenant, call.parts = _route(method, [unquote(part) for part in raw_path.split("/")[1:]])
    if raw and call.kind != "token":
        try:
            call.body = decode(raw.decode())
        except (ValueError, RecursionError):
            call.body = None
    call.ids = call.parts or _ids_in(call.body)
    return call


def _route(method: str, path: list[str]) -> tuple[Kind, str, tuple[str, ...]]:
    match path:
        case ["oauth", "token"] if method == "POST":
            return "token", "", ()
        case ["examRegistrations", tenant]:
            return _ON_ALL.get(method, "unknown"), tenant, ()
        case ["examRegistrations", tenant, one] if method in _ON_ONE:
            return _ON_ONE[method], tenant, (one,)
        case ["examRegistrations", tenant, word, *rest]:
            return _BY_WORD.get((method, word, len(rest)), "unknown"), tenant, tuple(rest)
    return "unknown", "", ()


def _ids_in(body: Any) -> tuple[str, ...]:
    """The ids of a search, or of the operations of a batch."""
    named = body.get("ids", body.get("operations")) if isinstance(body, dict) else None
    items = named if isinstance(named, list) else []
    return tuple(str(item.get("id") if isinstance(item, dict) else item) for item in items)


class CallLog:
    """Every call: the newest `LOG_SIZE` as entries, all of them in counters.

    An entry is there from the moment the call begins; `duration_ms` is None while it is under way, `status` None for
    ever when no answer was given. `at` and `ended_at` are epoch seconds: a call that began between another's `ended_at`
    and that plus its `retry_after` was told to wait and did not.
    """

    def __init__(self) -> None:
        self.entries: deque[dict[str, Any]] = deque(maxlen=LOG_SIZE)
        self.by_kind: Counter[str] = Counter()
        self.by_status: Counter[str] = Counter()
        self.operations = 0

    def begin(self, call: Call) -> dict[str, Any]:
        self.by_kind[f"{call.method} {call.kind}"] += 1
        operations = len(call.ids) if call.kind == "batch" else 0
        self.operations += operations
        entry = {
            "n": self.by_kind.total(), "at": call.at, "method": call.method, "kind": call.kind, "path": call.path,
            "tenant": call.tenant, "ids": call.ids, "operations": operations, "status": None, "duration_ms": None,
        }  # fmt: skip
        self.entries.append(entry)
        return entry

    def end(self, call: Call, entry: dict[str, Any], reply: Reply | None) -> None:
        now, status = time.time(), reply and reply.status
        headers = {name.lower(): value for name, value in reply.headers.items()} if reply else {}
        self.by_status[f"{call.method} {call.kind} {status}"] += 1
        entry |= {
            "ended_at": now, "duration_ms": (now - call.at) * 1000, "status": status, "fault": call.fault,
            "retry_after": headers.get("retry-after"),
        }  # fmt: skip
