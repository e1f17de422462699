"""What the vendor's document leaves open, as switches: each default is our best guess of the real Rhythm.

Only values and their validation; nothing here acts.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Unknown members are refused, so that a mistyped option or fault cannot pass as the default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RateLimit(Strict):
    """A token bucket for each tenant; over it the answer is 429 with, or without, `Retry-After`."""

    calls_per_second: float = Field(gt=0)
    burst: int = Field(default=1, ge=1)
    retry_after: Literal["seconds", "date", "none"] = "seconds"


class OAuthClient(Strict):
    """A machine-to-machine client; `tenant` None may call every tenant."""

    secret: str
    tenant: str | None = None


class Options(Strict):
    """How this Rhythm behaves. A guess where the Exam Registrations document is silent."""

    #: Time before each answer, after authorisation and rate limit.
    latency_ms: float = Field(default=0, ge=0)
    #: Items in a page of a list, lookup or search.
    page_size: int = Field(default=100, ge=1)
    #: Filter after cutting the page, as DynamoDB does: a search page may be short or empty and still not the last.
    sparse_pages: bool = False
    #: GET all: the document's bare array, or `{Count, Items, LastEvaluatedKey}` as the lookups give it.
    list_shape: Literal["array", "page"] = "array"
    #: A lookup without a match: 404 "Unable to locate records", or 200 with no items.
    nothing_found: Literal["404", "empty"] = "404"
    #: `LastEvaluatedKey` as a string, or as an object that comes back JSON-encoded.
    cursor: Literal["string", "object"] = "string"
    #: How texts (name, email_address, ...) match in a search.
    search_text: Literal["exact", "ignore_case", "contains"] = "ignore_case"
    #: The inner shape of a batch's `results`, which no document gives.
    batch_results: Literal["by_id", "by_index", "bare", "opaque"] = "by_id"
    #: Operations are "parallel": a seeded shuffle applies them in another order than asked.
    batch_order: Literal["request", "shuffled"] = "request"
    #: Enforce the sibling API's `object` (required) in each operation.
    batch_requires_object: bool = False
    #: One invalid operation refuses the whole call with 400, nothing applied (a failed `test` stays an item's error).
    batch_refuses_whole: bool = False
    #: Types of `value` in a patch: native; strings also taken and converted; or only strings, as documented.
    values: Literal["native", "string", "strict_string"] = "native"
    failed_test_status: Literal[400, 409, 412] = 400
    #: Answer to a write on a registration with `sys_locked`.
    locked_status: int = Field(default=403, ge=400, le=499)
    #: When told, another exam_id or student_id is 409 "refers to a non-existent object".
    known_exam_ids: list[str] | None = None
    known_student_ids: list[str] | None = None
    #: Tenants that exist; None is every tenant, a tenant outside the list is 403.
    tenants: list[str] | None = None
    #: API key -> the tenant it may call; None is every tenant.
    api_keys: dict[str, str | None] = {"sandbox-key": None}
    oauth_clients: dict[str, OAuthClient] = {"sandbox-client": OAuthClient(secret="sandbox-secret")}  # noqa: S106 - public
    audience: str = "https://api.rhythmsoftware.com"
    token_seconds: float = Field(default=86_400, gt=0)
    rate_limit: RateLimit | None = None

    def changed(self, changes: dict[str, object]) -> "Options":
        """These options with some of them replaced; raises pydantic's ValidationError."""
        return Options.model_validate(self.model_dump() | changes)
