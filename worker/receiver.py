"""The HTTP receiver. Authenticates, records the delivery, answers; hints afterwards. Looks into no payload.

2xx means that the body is on disk. What the platform sent may be nonsense: it is kept and buried with its reason,
because Drillster holds back every later result behind a refused one, and drops it after seven days.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import Message, Receive, Scope, Send

from schemas.event import Receipt
from schemas.outcome import Source
from worker import health, telemetry
from worker.body import Reader, Refused, check_framing, is_packed
from worker.bootstrap import Services, build
from worker.connection import Connection
from worker.contract import OPENAPI
from worker.credentials import Proof, allowed
from worker.errors import ConfigurationError, LedgerUnavailable
from worker.ledger import queries
from worker.ledger.client import UNAVAILABLE, connect_recorder
from worker.ledger.durability import check_redis
from worker.ledger.processes import Presence, Process, at_host, ended
from worker.ledger.recorder import Recorder
from worker.measures import Measures
from worker.settings import Settings, load_settings
from worker.sources import event_id
from worker.tenants import SourceRules

#: What a sender is told to wait when the ledger does not take its delivery.
RETRY_AFTER_SECONDS: Final = 5
_LATER: Final = {"Retry-After": str(RETRY_AFTER_SECONDS)}
_WANTED: Final = {"WWW-Authenticate": 'Basic realm="examrelay", Bearer'}
#: What goes with a refusal.
_HEADERS: Final = {401: _WANTED, 503: _LATER}
_LOG = structlog.get_logger()


class Receiver:
    """The door's handlers and what they work with."""

    def __init__(self, services: Services, door: Recorder) -> None:
        self.services = services
        self.door = door
        self.tenants = services.tenants.tenants
        self.measures = Measures()
        self.reader = Reader(services.settings.max_body_bytes)

    async def accept(self, request: Request) -> Response:
        """`POST /v1/{tenant}/{source}`, and below it for Drillster: 202 once the body is on disk."""
        tenant, source = _asked(request)
        rules = self._rules(tenant, source)
        if rules is None:
            return await self._refuse(request, Refused(404, "no such tenant, or no such source of its"))
        try:
            receipt = await self._record(request, tenant, source, rules)
        except Refused as refused:
            return await self._refuse(request, refused)
        except ClientDisconnect:
            return await self._refuse(request, Refused(400, "the connection ended before the body did"))
        except LedgerUnavailable as error:
            _LOG.warning("record.failed", tenant=tenant, source=source, why=str(error))
            self.measures.refused(tenant, source, 503)
            return problem(503, "not recorded: send it again", _LATER)
        self.measures.accepted(tenant, source, receipt.duplicate)
        return Response(receipt.model_dump_json(), 202, media_type="application/json")

    async def _record(self, request: Request, tenant: str, source: str, rules: SourceRules) -> Receipt:
        """Raises Refused, ClientDisconnect, LedgerUnavailable. Reads no body for a sender known to be none."""
        headers = request.headers
        proof = Proof(rules.credentials, headers)
        if not proof.possible:
            raise Refused(401, "bad credentials")
        check_framing(headers.getlist("transfer-encoding"), "content-length" in headers)
        packed = is_packed(headers.getlist("content-encoding")) if "content-encoding" in headers else False
        body = await self.reader.read(request.stream(), packed, proof)
        path = _below_source(request)
        id = event_id(tenant, Source(source), path, body.content)
        with self.measures.record_seconds.time():
            return await self.door.record(tenant, id, Source(source), path, body.content, body.problem)

    async def show(self, request: Request) -> Response:
        """`GET /v1/{tenant}/events/{id}`: the event without its payload."""
        tenant, id = request.path_params["tenant"], request.path_params["id"]
        rules = self.tenants.get(tenant)
        if rules is None:
            return problem(404, "no such tenant")
        if rules.read_credentials is None or not allowed([rules.read_credentials], request.headers):
            return problem(401, "bad read credentials", _WANTED)
        try:
            event = await run_in_threadpool(queries.event, self.services.redis, tenant, id)
        except UNAVAILABLE:
            return problem(503, "the ledger does not answer", _LATER)
        if event is None:
            return problem(404, "no such event")
        return Response(event.model_dump_json(), media_type="application/json")

    async def ready(self, _request: Request) -> Response:
        """`GET /readyz`: Redis durable as configured, swept lately, work moves."""
        report = await run_in_threadpool(health.readiness, self.services)
        return JSONResponse(report.as_json(), 200 if report.ready else 503)

    async def metrics(self, _request: Request) -> Response:
        """`GET /metrics`, for Prometheus."""
        ledger = await run_in_threadpool(health.metrics, self.services)
        return PlainTextResponse(ledger + self.measures.text())

    async def http_error(self, request: Request, error: Exception) -> Response:
        """404 and 405 of the routes. OPTIONS is answered with what is allowed."""
        if not isinstance(error, HTTPException):
            return _a_bug()
        headers = dict(error.headers or {})
        if request.method == "OPTIONS" and error.status_code == 405:
            return Response(status_code=204, headers={"Allow": f"{headers['Allow']}, OPTIONS"})
        return await self._refuse(request, Refused(error.status_code, error.detail), headers)

    async def _refuse(self, request: Request, refused: Refused, headers: dict[str, str] | None = None) -> Response:
        """Answer a refusal, count it, and note it for `status` if it was for a source that there is."""
        tenant, source = _asked(request)
        if self._rules(tenant, source) is None:
            self.measures.refused("", "", refused.status)
        else:
            self.measures.refused(tenant, source, refused.status)
            at = datetime.now(UTC).isoformat(timespec="seconds")
            await self.door.refused(tenant, source, f"{at} {refused.status} {refused.detail}")
        return problem(refused.status, refused.detail, _HEADERS.get(refused.status, headers))

    def _rules(self, tenant: str, source: str) -> SourceRules | None:
        rules = self.tenants.get(tenant)
        return rules.sources.get(Source(source)) if rules and source in _SOURCES else None


def _asked(request: Request) -> tuple[str, str]:
    """The tenant and the source that a request is for, as the URL says; empty where it says none."""
    named = request.path_params
    if "tenant" not in named:
        return "", ""
    return unquote(named["tenant"]), unquote(named.get("source", Source.DRILLSTER))


def _below_source(request: Request) -> str:
    """The path below the source, as sent: percent-encoded."""
    named = request.path_params
    return "/".join(named[name] for name in ("event_type", "event_id") if name in named)


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as `application/problem+json` (RFC 9457)."""
    told = {"status": status, "title": _TITLES.get(status, "Error"), "detail": detail}
    return JSONResponse(told, status, headers, media_type="application/problem+json")


def _a_bug() -> Response:
    return problem(500, "a bug of ours: send it again", {"Retry-After": "60"})


_SOURCES: Final = frozenset(Source)
_TITLES: Final = {
    400: "Bad request",
    401: "Unauthorized",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    411: "Length required",
    413: "Too large",
    415: "Unsupported encoding",
    500: "Internal error",
    503: "Not recorded",
}


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("alive\n")


async def _contract(_request: Request) -> Response:
    return JSONResponse(OPENAPI)


def make_app(settings: Settings) -> Starlette:
    """The ASGI app. Raises ConfigurationError when the tenants file is wrong."""
    services = build(settings, patient=False)
    receiver = Receiver(services, Recorder(connect_recorder(settings), settings))

    presence = Presence(Process("web", f"{at_host('web')}:{settings.port}", services.tenants.digest))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(receiver.door.watch(presence))
        yield
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        with suppress(*UNAVAILABLE):
            await run_in_threadpool(ended, services.redis, presence.name)
        await receiver.door.client.aclose()
        services.close()

    routes = [Route(path, handler, methods=[method]) for path, handler, method in _routes(receiver)]
    app = _App(
        routes=routes,
        exception_handlers={HTTPException: receiver.http_error, Exception: receiver.http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.deliveries = routes[0]
    return app


def _routes(receiver: Receiver) -> list[tuple[str, Callable[[Request], Awaitable[Response]], str]]:
    return [
        ("/v1/{tenant}/{source}", receiver.accept, "POST"),
        ("/v1/{tenant}/drillster/{event_type}", receiver.accept, "POST"),
        ("/v1/{tenant}/drillster/{event_type}/{event_id}", receiver.accept, "PUT"),
        ("/v1/{tenant}/events/{id}", receiver.show, "GET"),
        ("/healthz", _alive, "GET"),
        ("/readyz", receiver.ready, "GET"),
        ("/metrics", receiver.metrics, "GET"),
        ("/openapi.json", _contract, "GET"),
    ]


class _App(Starlette):
    """Starlette, routed by the path as it was sent: a `%2F` in an event's id divides nothing, nor a last `/`.

    A bug is reported here, without what it choked on; uvicorn would log the whole of it.
    """

    #: The route that nearly all take.
    deliveries: Route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        path = scope["raw_path"].decode("latin-1").partition("?")[0]
        scope["path"] = path.removesuffix("/") or "/"
        unheard = False

        async def answer(message: Message) -> None:
            nonlocal unheard
            try:
                await send(message)
            except RuntimeError:  # uvloop's, for a connection that its client has reset
                unheard = True
                raise

        try:
            await self._answer(scope, receive, answer)
        except Exception as error:  # noqa: BLE001  # answered already, with 500
            if unheard:
                _LOG.info("answer.unheard")
            else:
                telemetry.report_bug(error, process="web")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A delivery goes past Starlette's middleware and router, which cost a fifth of it."""
        matches, found = self.deliveries.matches(scope)
        if matches is not Match.FULL:
            await super().__call__(scope, receive, send)
            return
        scope.update(found)
        try:
            response = await self.deliveries.endpoint(Request(scope, receive))
        except Exception:
            await _a_bug()(scope, receive, send)
            raise
        await response(scope, receive, send)


def main() -> None:
    """Serve: `python -m worker.receiver`. Refuses to start on what cannot work, with one message."""
    try:
        settings = load_settings()
        telemetry.set_up(settings, "web")
        app = make_app(settings)
        services = build(settings, patient=False)
        durability = check_redis(services.redis, settings)
        assert services.identity  # read now, so that a mistake shows here
        services.close()
        listening = listen(settings.port)
    except ConfigurationError as error:
        sys.exit(f"examrelay web: {error}")
    _LOG.info("web.started", port=settings.port, durability=durability)
    uvicorn.Server(server_config(app, settings)).run(sockets=[listening])


def server_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the app."""
    return uvicorn.Config(
        app, loop="uvloop", http=Connection, ws="none", log_config=None, access_log=False, lifespan="on",
        timeout_keep_alive=settings.keep_alive_seconds,
    )  # fmt: skip


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
