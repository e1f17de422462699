"""The control face, `/_sandbox`: seeding, reading back, options and faults. No authorisation: loopback only.

Knows nothing of Rhythm's own endpoints. What the caller got wrong is 422, with the reason.
"""

from collections.abc import Callable
from typing import Any, Protocol

from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sandbox.admission import Pace
from sandbox.calls import decode
from sandbox.endpoints import World
from sandbox.faults import Fault, Script
from sandbox.registrations import Record

_FAULTS = TypeAdapter(list[Fault])
_SEEDS = TypeAdapter(dict[str, list[dict[str, Any]]])


class Holder(Protocol):
    """Whoever holds the world in force."""

    world: World


def seed(world: World, given: Any) -> int:
    """Put registrations there, `{tenant: [registration, ...]}`; gives their number."""
    seeds = _SEEDS.validate_python(given)
    for tenant, registrations in seeds.items():
        for registration in registrations:
            world.of(tenant).seed(registration)
    return sum(map(len, seeds.values()))


def _record(world: World, at: dict[str, str], *, may_be_deleted: bool) -> Record:
    record = world.of(at["tenant"]).records.get(at["id"])
    if record is None or (record.current is None and not may_be_deleted):
        raise LookupError(f"no registration {at['id']} of {at['tenant']}")
    return record


def _one(world: World, at: dict[str, str], _: Any) -> dict[str, Any]:
    record, place = _record(world, at, may_be_deleted=True), (at["tenant"], at["id"])
    letters = [letter for letter in world.letters if (letter["tenant"], letter["registration"]) == place]
    return {"registration": record.current, "history": record.history, "letters": letters}


def _edit(world: World, at: dict[str, str], fields: Any) -> Any:
    """A registrar's edit: members are merged, null removes one; nothing is checked, a lock does not stop it."""
    record = _record(world, at, may_be_deleted=False)
    after = {name: value for name, value in ((record.current or {}) | fields).items() if value is not None}
    return world.of(at["tenant"]).save(record, after, "registrar", "edit")


def _counts(world: World, *_: Any) -> dict[str, Any]:
    log, writes = world.log, sum(tenant.writes for tenant in world.tenants.values())
    return {
        "calls": log.by_kind.total(), "operations": log.operations, "writes": writes, "letters": len(world.letters),
        "tokens": world.tokens.issued, "by_kind": log.by_kind, "by_status": log.by_status,
    }  # fmt: skip


def _set_options(world: World, _: dict[str, str], changes: Any) -> dict[str, Any]:
    world.options, world.pace = world.options.changed(changes or {}), Pace()
    return world.options.model_dump()


def _add_faults(world: World, _: dict[str, str], given: Any) -> None:
    world.faults.scripts += [Script(fault) for fault in _FAULTS.validate_python(given)]


#: (method, path) -> what is done with (world, path and query parameters, body), and answered.
_ACTS: dict[tuple[str, str], Callable[[World, dict[str, str], Any], Any]] = {
    ("PUT", "registrations"): lambda world, _, body: seed(world, body),
    ("GET", "registrations/{tenant}"): lambda world, at, _: {
        one.id: one.current for one in world.of(at["tenant"]).all()
    },
    ("GET", "registrations/{tenant}/{id:path}"): _one,
    ("PATCH", "registrations/{tenant}/{id:path}"): _edit,
    ("GET", "letters"): lambda world, *_: world.letters,
    ("GET", "requests"): lambda world, at, _: [one for one in world.log.entries if one["n"] > int(at.get("after", 0))],
    ("GET", "counts"): _counts,
    ("PUT", "options"): _set_options,
    ("GET", "faults"): lambda world, *_: [script.describe() for script in world.faults.scripts],
    ("POST", "faults"): _add_faults,
    ("DELETE", "faults"): lambda world, *_: world.faults.scripts.clear(),
    ("DELETE", "tokens"): lambda world, *_: world.tokens.expire_all(),
}


def control_face(holder: Holder) -> Starlette:
    def route(method: str, path: str, act: Callable[[World, dict[str, str], Any], Any]) -> Route:
        async def respond(request: Request) -> JSONResponse:
            try:
                body = decode((await request.body()).decode() or "null")
                return JSONResponse(act(holder.world, {**request.query_params, **request.path_params}, body))
            except LookupError as missing:
                return JSONResponse({"message": str(missing)}, 404)
            except (ValueError, TypeError) as mistake:  # pydantic's and JSON's are ValueErrors
                return JSONResponse({"message": str(mistake)}, 422)

        return Route(f"/_sandbox/{path}", respond, methods=[method])

    def reset(*_: Any) -> None:
        holder.world = World()

    return Starlette(routes=[*(route(*at, act) for at, act in _ACTS.items()), route("POST", "reset", reset)])
