"""The HTTP door. Authenticates, puts the delivery on the books, answers; hints afterwards. Looks into no payload.

2xx means that the body is on disk. What the platform sent may be nonsense: it is kept and buried with its reason,
because Drillster holds back every later result behind a refused one, and drops it after seven days.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from schemas.event import Stage
from schemas.outcome import Source
from worker import health, telemetry
from worker.body import BodyRefused, read_body
from worker.bootstrap import Services, build
from worker.celery import hint
from worker.credentials import allowed
from worker.errors import ConfigurationError, LedgerUnavailable
from worker.ledger import index
from worker.ledger.client import UNAVAILABLE, check_redis, connect_door
from worker.ledger.door import Door
from worker.settings import Settings, load_settings
from worker.sources import event_id

#: What a sender is told to wait when the ledger does not take its delivery.
RETRY_AFTER_SECONDS: Final = 5
_LOG = structlog.get_logger()


class Receiver:
    """The door's handlers and what they work with."""

    def __init__(self, services: Services, door: Door) -> None:
        self.services = services
        self.door = door
        self.tenants = services.tenants.tenants
        #: One thread publishes hints, in order, after the answer.
        self.hints = ThreadPoolExecutor(1, thread_name_prefix="hints")

    async def accept(self, request: Request) -> Response:
        """`POST /v1/{tenant}/{source}`, and below it for Drillster: 202 once the body is on disk."""
        tenant, source = request.path_params["tenant"], request.path_params.get("source", Source.DRILLSTER)
        rules = self.tenants[tenant].sources.get(source) if tenant in self.tenants else None
        if rules is None:
            return problem(404, f"no tenant {tenant} with source {source}")
        if not allowed(rules.credentials, request.headers):
            await self._note_refusal(request, 401, "bad credentials")
            return problem(401, "bad credentials", {"WWW-Authenticate": 'Basic realm="examrelay", Bearer'})
        try:
            encoding = request.headers.get("content-encoding", "").strip().lower()
            body = await read_body(request.stream(), encoding, self.services.settings.max_body_bytes)
            path = _below_source(request, tenant, source)
            id = event_id(tenant, Source(source), path, body.content)
            receipt, hint_wanted = await self.door.record(tenant, id, Source(source), path, body.content, body.problem)
        except BodyRefused as refused:
            await self._note_refusal(request, refused.status, refused.detail)
            return problem(refused.status, refused.detail)
        except LedgerUnavailable as error:
            _LOG.warning("record.failed", tenant=tenant, source=source, why=str(error))
            return problem(503, "not recorded: send it again", {"Retry-After": str(RETRY_AFTER_SECONDS)})
        if hint_wanted:
            self.hints.submit(hint, Stage.PROCESS, tenant)
        return Response(receipt.model_dump_json(), 202, media_type="application/json")

    async def show(self, request: Request) -> Response:
        """`GET /v1/{tenant}/events/{id}`: the event without its payload."""
        tenant = request.path_params["tenant"]
        rules = self.tenants.get(tenant)
        if rules is None:
            return problem(404, f"no tenant {tenant}")
        if rules.read_credentials is None or not allowed([rules.read_credentials], request.headers):
            return problem(401, "bad read credentials", {"WWW-Authenticate": 'Basic realm="examrelay", Bearer'})
        id = request.path_params["id"]
        try:
            event = await run_in_threadpool(index.event, self.services.redis, tenant, id)
        except UNAVAILABLE:
            return problem(503, "the ledger does not answer", {"Retry-After": str(RETRY_AFTER_SECONDS)})
        if event is None:
            return problem(404, f"no event {id}")
        return Response(event.model_dump_json(), media_type="application/json")

    async def ready(self, _request: Request) -> Response:
        """`GET /readyz`: Redis durable as configured, swept lately, work moves."""
        report = await run_in_threadpool(health.readiness, self.services)
        return JSONResponse(report.as_json(), 200 if report.ready else 503)

    async def metrics(self, _request: Request) -> Response:
        """`GET /metrics`, for Prometheus."""
        return PlainTextResponse(await run_in_threadpool(health.metrics, self.services))

    async def _note_refusal(self, request: Request, status: int, why: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        source = request.path_params.get("source", Source.DRILLSTER)
        await self.door.refused(request.path_params["tenant"], source, f"{at} {status} {why}")


def _below_source(request: Request, tenant: str, source: str) -> str:
    """The path below the source, as sent: percent-encoded, without its slash."""
    raw = request.scope["raw_path"].decode("latin-1").partition("?")[0]
    return str(raw).removeprefix(f"/v1/{tenant}/{source}").strip("/")


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as `application/problem+json` (RFC 9457)."""
    told = {"status": status, "title": _TITLES.get(status, "Error"), "detail": detail}
    return JSONResponse(told, status, headers, media_type="application/problem+json")


_TITLES: Final = {
    400: "Bad request",
    401: "Unauthorized",
    404: "Not found",
    405: "Method not allowed",
    413: "Too large",
    415: "Unsupported encoding",
    500: "Internal error",
    503: "Not recorded",
}


async def _http_error(_request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return problem(error.status_code, error.detail, dict(error.headers or {}))
    return problem(500, "a bug of ours; nothing was recorded: send it again", {"Retry-After": "60"})


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("alive\n")


def make_app(settings: Settings) -> Starlette:
    """The ASGI app. Raises ConfigurationError when the tenants file is wrong."""
    services = build(settings, patient=False)
    receiver = Receiver(services, Door(connect_door(settings), settings.replicas))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(receiver.door.watch_memory())
        yield
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await run_in_threadpool(partial(receiver.hints.shutdown, wait=True))
        await receiver.door.client.aclose()
        services.close()

    def route(path: str, handler: Callable[[Request], Awaitable[Response]], method: str) -> Route:
        return Route(path, handler, methods=[method])

    return Starlette(
        routes=[
            route("/v1/{tenant}/{source}", receiver.accept, "POST"),
            route("/v1/{tenant}/drillster/{event_type}", receiver.accept, "POST"),
            route("/v1/{tenant}/drillster/{event_type}/{event_id}", receiver.accept, "PUT"),
            route("/v1/{tenant}/events/{id}", receiver.show, "GET"),
            route("/healthz", _alive, "GET"),
            route("/readyz", receiver.ready, "GET"),
            route("/metrics", receiver.metrics, "GET"),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _http_error},
        lifespan=lifespan,
    )


def main() -> None:
    """Serve: `python -m worker.receiver`. Refuses to start on what cannot work, with one message."""
    try:
        settings = load_settings()
        telemetry.set_up(settings, "web")
        app = make_app(settings)
        services = build(settings, patient=False)
        durability = check_redis(services.redis, settings)
        services.close()
        listening = listen(settings.port)
    except ConfigurationError as error:
        sys.exit(f"examrelay web: {error}")
    _LOG.info("web.started", port=settings.port, durability=durability)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_config=None, access_log=False, lifespan="on")
    uvicorn.Server(config).run(sockets=[listening])


def listen(port: int) -> socket.socket:
    """A socket on all interfaces. Raises ConfigurationError when the port is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("0.0.0.0", port))  # noqa: S104  # a door is for others
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"port {port} cannot be had ({error.strerror}). Set PORT to a free one, or end what uses it."
        ) from None
    return listening


if __name__ == "__main__":
    main()
