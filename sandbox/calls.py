"""One call to the stand-in: which endpoint it names and what it carries; and the log of all calls."""

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

from pydantic_core import from_json
from starlette.responses import Response
from starlette.types import Scope

Kind = Literal["get", "patch", "delete", "student_exam", "search", "batch", "token", "unknown"]
_OF_ONE: dict[str, Kind] = {"GET": "get", "PATCH": "patch", "DELETE": "delete"}
_OF_MANY: dict[str, Kind] = {"search": "search", "batch": "batch"}
LOG_SIZE = 50_000


class Refused(Exception):
    """The call, or an item of a batch, is answered with an error; its body is a guess, the document gives none."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.body, self.headers = status, {"message": message}, headers


@dataclass(slots=True)
class Call:
    """A request as the endpoints see it; a body that is not JSON is None."""

    method: str
    path: str
    authorization: str
    kind: Kind
    tenant: str
    #: The registrations (or student and exam) that it names, in its path or its body.
    ids: tuple[str, ...]
    query: dict[str, str]
    body: Any


def parse(scope: Scope, raw: bytes) -> Call:
    """The call that a request makes."""
    method, path, query = scope["method"], scope["raw_path"].decode(), scope["query_string"].decode()
    authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    # Segments are decoded one by one: an id may hold `|`, `:` or `%2F`.
    kind, tenant, ids = _route(method, [unquote(part) for part in path.split("/")[1:]])
    body = dict(parse_qsl(raw.decode(errors="replace"))) if kind == "token" else _json(raw)
    whole = f"{path}?{query}" if query else path
    return Call(method, whole, authorization, kind, tenant, ids or _named(body), dict(parse_qsl(query)), body)


def _route(method: str, path: list[str]) -> tuple[Kind, str, tuple[str, ...]]:
    match method, path:
        case "POST", ["oauth", "token"]:
            return "token", "", ()
        case "POST", ["examRegistrations", tenant, word] if word in _OF_MANY:
            return _OF_MANY[word], tenant, ()
        case "GET", ["examRegistrations", tenant, "studentExam", student, exam]:
            return "student_exam", tenant, (student, exam)
        case _, ["examRegistrations", tenant, one] if method in _OF_ONE:
            return _OF_ONE[method], tenant, (one,)
    return "unknown", "", ()


def _json(raw: bytes) -> Any:
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError:
        return None


def _named(body: Any) -> tuple[str, ...]:
    """The ids of a search, or of the operations of a batch."""
    items = body.get("ids", body.get("operations")) if isinstance(body, dict) else None
    if not isinstance(items, list):
        return ()
    return tuple(str(item.get("id") if isinstance(item, dict) else item) for item in items)


class Log:
    """Every call: the newest as entries, all of them in counters.

    An entry is there from the moment its call begins. `ended_at` is None while it is under way, `status` None for ever
    when no answer was given. Times are epoch seconds: a call that began between another's `ended_at` and that plus its
    `retry_after` broke that `Retry-After`.
    """

    def __init__(self) -> None:
        self.entries: deque[dict[str, Any]] = deque(maxlen=LOG_SIZE)
        self.by_kind: Counter[str] = Counter()
        self.by_status: Counter[str] = Counter()
        self.calls = 0

    def begin(self, call: Call, at: float) -> dict[str, Any]:
        self.calls += 1
        self.by_kind[f"{call.method} {call.kind}"] += 1
        entry: dict[str, Any] = {"n": self.calls, "at": at, "kind": call.kind, "path": call.path, "ids": call.ids}
        entry |= dict.fromkeys(("ended_at", "status", "retry_after"))
        self.entries.append(entry)
        return entry

    def end(self, entry: dict[str, Any], response: Response | None) -> None:
        status, headers = (response.status_code, response.headers) if response else (None, {})
        self.by_status[str(status)] += 1
        entry |= {"ended_at": time.time(), "status": status, "retry_after": headers.get("retry-after")}
