"""What a test may set: options for what the vendor's document leaves open, and scripted faults.

Each option's default is our best guess of the real Rhythm.
"""

import random
from typing import Any, Literal

from pydantic import BaseModel, Field

from sandbox.calls import Call, Kind


class _Strict(BaseModel, extra="forbid"):
    """Refuses unknown members: a misspelt option or fault is an error and not silently the default."""


class RateLimit(_Strict):
    """A token bucket for each tenant; over it the answer is 429 with, or without, `Retry-After`."""

    calls_per_second: float = Field(gt=0)
    burst: int = 1
    retry_after: Literal["seconds", "date", "none"] = "seconds"


class Options(_Strict):
    """How this Rhythm behaves."""

    #: Time before each answer, after authorisation and rate limit.
    latency_ms: float = 0
    page_size: int = Field(default=100, ge=1)
    #: Filter after cutting the page, as DynamoDB does: a search page may be short or empty and still not the last.
    sparse_pages: bool = False
    #: A lookup without a match: 404 "Unable to locate records", or 200 with no items.
    nothing_found: Literal["404", "empty"] = "404"
    #: `LastEvaluatedKey` as a string, or as an object that comes back JSON-encoded.
    cursor: Literal["string", "object"] = "string"
    #: How a text (an e-mail address) matches in a search; `exact`: letter by letter.
    search_text: Literal["ignore_case", "contains", "exact"] = "ignore_case"
    #: The inner shape of a batch's `results`, which no document gives.
    batch_results: Literal["by_id", "by_index", "bare", "opaque"] = "by_id"
    #: Operations are "parallel": shuffled, they are applied in another order than asked.
    batch_order: Literal["request", "shuffled"] = "request"
    #: Enforce the sibling API's `object` (required) in each operation.
    batch_requires_object: bool = False
    #: One invalid operation refuses the whole call with 400, nothing applied (a failed `test` stays an item's error).
    batch_refuses_whole: bool = False
    #: Types of `value` in a patch: native; strings also taken and converted; or only strings, as documented.
    values: Literal["native", "string", "strict_string"] = "native"
    failed_test_status: Literal[400, 409, 412] = 400
    #: When given, another exam_id is 409 "refers to a non-existent object".
    known_exam_ids: list[str] | None = None
    #: API key -> the tenant it may call; None is every tenant.
    api_keys: dict[str, str | None] = {"sandbox-key": None}
    token_seconds: float = 86_400
    rate_limit: RateLimit | None = None


class Fault(_Strict):
    """One scripted failure: what goes wrong, and for which calls; kind, ids, email and tenant must fit, where given.

    status: this answer, nothing applied · hang: an answer after `seconds`, or never · reset: connection cut, nothing
    applied · apply_then_lose: applied, then cut · apply_late: cut, applied `delay_ms` later if the patch's own `test`
    still holds · latency: `ms` more, then on. Of single registrations: stale: reads without consistentRead give the
    version before the last change · item_error: its item of a batch fails with `status` · alter: the write is accepted,
    and `fields` are changed on the way.
    """

    action: Literal[
        "status", "hang", "reset", "apply_then_lose", "apply_late", "latency", "stale", "item_error", "alter"
    ]
    kind: Kind | list[Kind] | None = None
    ids: set[str] | None = None
    #: The address that a search is for.
    email: str | None = None
    tenant: str | None = None
    #: How often it is still to happen; None is always. Of a registration's faults each registration counts.
    times: int | None = 1
    #: How many calls that fit are let through first.
    skip: int = 0
    probability: float = 1
    status: int = 500
    body: Any = {"message": "scripted failure"}
    headers: dict[str, str] = {}
    seconds: float | None = None
    delay_ms: float = 0
    ms: float = 0
    fields: dict[str, Any] = {}

    def fires(self, call: Call, ids: tuple[str, ...]) -> bool:
        """Whether it happens to this call, or to these registrations of it; if so, it has."""
        if self.times == 0 or not self._fits(call, ids) or random.random() >= self.probability:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def _fits(self, call: Call, ids: tuple[str, ...]) -> bool:
        return (
            (self.kind is None or call.kind in ([self.kind] if isinstance(self.kind, str) else self.kind))
            and (self.tenant is None or call.tenant == self.tenant)
            and (self.email is None or (isinstance(call.body, dict) and call.body.get("email_address") == self.email))
            and (self.ids is None or not self.ids.isdisjoint(ids))
        )
