"""The receiver's contract, as OpenAPI 3.1. Data only; a test holds it against the routes and against every answer.

What each answer means for a sender, and what to do on it, is in `docs/sending.md`.
"""

from typing import Any, Final

from schemas.event import Event, Receipt
from schemas.outcome import Source

_SCHEMA: Final = "#/components/schemas/{model}"
_Json = dict[str, Any]


def _parameter(name: str, says: str, **schema: Any) -> _Json:
    return {
        "name": name, "in": "path", "required": True, "description": says, "schema": {"type": "string"} | schema,
    }  # fmt: skip


_TENANT: Final = _parameter("tenant", "The tenant's name in the tenants file.")
_SOURCE: Final = _parameter("source", "The exam platform.", enum=[source.value for source in Source])
_TYPE: Final = _parameter("event_type", "Drillster's event type, where the body does not say it.")
_ID: Final = _parameter("event_id", "Drillster's event id, percent-encoded, where the body does not say it.")


def _problem(says: str, **headers: str) -> _Json:
    answer: _Json = {
        "description": says,
        "content": {"application/problem+json": {"schema": {"$ref": _SCHEMA.format(model="Problem")}}},
    }
    if headers:
        answer["headers"] = {
            name.replace("_", "-"): {"description": told, "schema": {"type": "string"}}
            for name, told in headers.items()
        }
    return answer


_CLOSED: Final = {
    "401": _problem("Bad credentials. Nothing was recorded.", WWW_Authenticate="What is accepted."),
    "404": _problem("There is no such tenant or source. Nothing was recorded."),
    "500": _problem("A bug of ours. Send it again.", Retry_After="Seconds."),
    "503": _problem(
        "The ledger cannot be used just now, or too many senders not yet known send large bodies. Send it again.",
        Retry_After="Seconds.",
    ),
}
_ACCEPTED: Final = {
    "description": "The body is on disk. The same answer for the same delivery again, with its present state. Also for "
    "what is no JSON or not of the source's shape: that is kept and buried with its reason.",
    "content": {"application/json": {"schema": {"$ref": _SCHEMA.format(model="Receipt")}}},
}
_DELIVERED: Final = {
    "202": _ACCEPTED,
    "400": _problem("Broken gzip, or the connection ended before the body did. Nothing was recorded."),
    "408": _problem("A large body of a sender not yet known took over a minute. Nothing was recorded."),
    "411": _problem("Neither Content-Length nor Transfer-Encoding. Nothing was recorded."),
    "413": _problem("Over 20 MiB. Nothing was recorded."),
    "415": _problem("Packed in another way than gzip. Nothing was recorded."),
    "431": _problem("Over 256 headers, or over 128 KiB of them. Nothing was recorded."),
    **_CLOSED,
}


def _delivery(summary: str) -> _Json:
    return {
        "summary": summary,
        "security": [{"basic": []}, {"bearer": []}, {"header": []}, {"standardWebhooks": []}, {}],
        "requestBody": {
            "description": "The platform's own JSON, perhaps gzip-packed; kept byte for byte. Keys that the tenant's "
            "credentials expect in it are blanked first.",
            "required": True,
            "content": {"application/json": {"schema": {}}, "*/*": {"schema": {}}},
        },
        "responses": _DELIVERED,
    }


def _look(summary: str, kind: str, **more: str) -> _Json:
    answers = {"200": "It is.", **{name.removeprefix("status_"): says for name, says in more.items()}}
    return {
        "summary": summary,
        "security": [{}],
        "responses": {status: {"description": says, "content": {kind: {}}} for status, says in answers.items()},
    }


def _schemas() -> _Json:
    event = Event.model_json_schema(ref_template=_SCHEMA, mode="serialization")
    receipt = Receipt.model_json_schema(ref_template=_SCHEMA, mode="serialization")
    shared = receipt.pop("$defs", {}) | event.pop("$defs", {})
    problem = {
        "type": "object",
        "description": "RFC 9457.",
        "required": ["status", "title", "detail"],
        "properties": {"status": {"type": "integer"}, "title": {"type": "string"}, "detail": {"type": "string"}},
    }
    return {"Receipt": receipt, "Event": event, "Problem": problem, **shared}


OPENAPI: Final[_Json] = {
    "openapi": "3.1.0",
    "info": {
        "title": "examrelay",
        "version": "1",
        "description": "Exam results in. 202 means that the body is on disk. A delivery may be sent again whatever the "
        "answer: the same bytes are the same event.",
    },
    "paths": {
        "/v1/{tenant}/{source}": {
            "parameters": [_TENANT, _SOURCE],
            "post": _delivery("Deliver a result."),
        },
        "/v1/{tenant}/drillster/{event_type}": {
            "parameters": [_TENANT, _TYPE],
            "post": _delivery("Deliver a Drillster event whose type is in the URL."),
        },
        "/v1/{tenant}/drillster/{event_type}/{event_id}": {
            "parameters": [_TENANT, _TYPE, _ID],
            "put": _delivery("Deliver a Drillster event whose type and id are in the URL."),
        },
        "/v1/{tenant}/events/{id}": {
            "parameters": [_TENANT, _parameter("id", "An event's id, as in a receipt.")],
            "get": {
                "summary": "Where an event stands. Needs the tenant's read credentials.",
                "security": [{"basic": []}, {"bearer": []}, {"header": []}],
                "responses": {
                    "200": {
                        "description": "The event, without its payload.",
                        "content": {"application/json": {"schema": {"$ref": _SCHEMA.format(model="Event")}}},
                    },
                    **_CLOSED,
                },
            },
        },
        "/healthz": {"get": _look("Alive.", "text/plain")},
        "/readyz": {
            "get": _look(
                "Results are kept and taken, swept lately, a worker lives, work moves.", "application/json",
                status_503="It is not.",
            )
        },
        "/metrics": {"get": _look("Figures for Prometheus.", "text/plain")},
        "/openapi.json": {"get": _look("This document.", "application/json")},
    },
    "components": {
        "securitySchemes": {
            "basic": {"type": "http", "scheme": "basic"},
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "as in the tenants file"},
            "standardWebhooks": {
                "type": "apiKey", "in": "header", "name": "webhook-signature",
                "description": "standardwebhooks.com: with webhook-id and webhook-timestamp, over the unpacked body.",
            },
        },
        "schemas": _schemas(),
    },
}  # fmt: skip
