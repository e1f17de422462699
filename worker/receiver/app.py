"""The HTTP receiver: authenticates a sender, records the delivery, answers. It does not read payloads.

2xx means that the body is on disk. A body that is not valid is recorded too, and becomes a dead event with its reason:
a platform may hold back every later result behind a refused one (Drillster does, and drops it after seven days).
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote

import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from schemas.outcome import Source
from worker import health, sentry, telemetry
from worker.bootstrap import Services, build
from worker.errors import ConfigurationError, LedgerUnavailable
from worker.ledger import queries
from worker.ledger.client import UNAVAILABLE, connect_recorder
from worker.ledger.durability import check_redis
from worker.ledger.processes import Presence, Process, at_host, ended
from worker.ledger.recorder import Recorder
from worker.receiver import figures
from worker.receiver.asgi import App, bug_answer, problem
from worker.receiver.body import Body, Reader, Refused, check_framing, is_packed
from worker.receiver.connection import Connection
from worker.receiver.credentials import Proof, allowed
from worker.receiver.metrics import Measures
from worker.receiver.openapi import DELIVERIES, OPENAPI, paths_below
from worker.settings import Settings, load_settings
from worker.sockets import listen
from worker.sources import event_id
from worker.tenants import BearerCredentials, SourceRules

#: What a sender is asked to wait when its delivery was not recorded.
_LATER: Final = {"Retry-After": "5"}  # seconds
_WANTED: Final = {"WWW-Authenticate": 'Basic realm="examrelay", Bearer'}
#: The headers of a refusal.
_HEADERS: Final = {401: _WANTED, 503: _LATER}
_CONTRACT: Final = JSONResponse(OPENAPI).body  # made once: whoever asks need not be known
_LOG = structlog.get_logger()


class Receiver:
    """The handlers of the routes, and what they work with."""

    def __init__(self, services: Services, recorder: Recorder) -> None:
        self.services = services
        self.recorder = recorder
        self.tenants = services.tenants
        self.measures = Measures(services.tenants)
        self.reader = Reader(services.settings.max_body_bytes)

    async def accept(self, request: Request) -> Response:
        """`POST /v1/{tenant}/{source}` and each platform's paths below it: 202 once the body is on disk."""
        tenant, source, path = _place(request)
        rules = self.tenants.find(tenant, source)
        if rules is None:
            return self._refuse(request, Refused(404, "no such tenant, or no such source of its"))
        began = time.time()
        try:
            body = await self._read(request, rules)
            id = event_id(tenant, Source(source), path, body.content)
            with self.measures.record_seconds.time():
                receipt = await self.recorder.record(tenant, id, Source(source), path, body.content, body.problem)
        except Refused as refused:
            return self._refuse(request, refused)
        except ClientDisconnect:
            return self._refuse(request, Refused(400, "the connection ended before the body did"))
        except LedgerUnavailable as error:
            _LOG.warning("record.failed", tenant=tenant, source=source, why=str(error))
            self.measures.refused(tenant, source, 503)
            return problem(503, "not recorded: send it again", _LATER)
        self.measures.accepted(tenant, source, receipt.duplicate)
        sentry.received(id, began, tenant=tenant, source=source)
        return Response(receipt.model_dump_json(), 202, media_type="application/json")

    async def _read(self, request: Request, rules: SourceRules) -> Body:
        """Raises Refused, ClientDisconnect. Reads no body when the headers already show that the sender is unknown."""
        headers = request.headers
        proof = Proof(rules.credentials, headers)
        if not proof.possible:
            raise Refused(401, "bad credentials")
        check_framing(headers.getlist("transfer-encoding"), "content-length" in headers)
        packed = is_packed(headers.getlist("content-encoding")) if "content-encoding" in headers else False
        return await self.reader.read(request.stream(), packed, proof)

    async def show(self, request: Request) -> Response:
        """`GET /v1/{tenant}/events/{id}`: the event without its payload."""
        tenant, id = request.path_params["tenant"], request.path_params["id"]
        rules = self.tenants.tenants.get(tenant)
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

    async def ready(self, request: Request) -> Response:
        """`GET /readyz`: Redis is durable as configured, a sweep ran lately, work moves."""
        report = await run_in_threadpool(health.readiness, self.services)
        told = report.as_json() if self._may_look(request) else {"ready": report.ready}
        return JSONResponse(told, 200 if report.ready else 503)

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`, for Prometheus."""
        if not self._may_look(request):
            return problem(
                401, "this wants Authorization: Bearer, and the metrics token", {"WWW-Authenticate": "Bearer"}
            )
        ledger = await run_in_threadpool(figures.metrics, self.services)
        return Response(ledger + self.measures.text(), media_type=CONTENT_TYPE_LATEST)

    def _may_look(self, request: Request) -> bool:
        """Whether a request may have the figures: nobody is asked for a token while none is set."""
        token = self.services.settings.metrics_token
        return not token or allowed([BearerCredentials.model_construct(kind="bearer", token=token)], request.headers)

    async def http_error(self, request: Request, error: Exception) -> Response:
        """404 and 405 of the routes. OPTIONS is answered with what is allowed."""
        if not isinstance(error, HTTPException):
            return bug_answer()
        headers = dict(error.headers or {})
        if request.method == "OPTIONS" and error.status_code == 405:
            return Response(status_code=204, headers={"Allow": f"{headers['Allow']}, OPTIONS"})
        return self._refuse(request, Refused(error.status_code, error.detail), headers)

    def _refuse(self, request: Request, refused: Refused, headers: dict[str, str] | None = None) -> Response:
        """Answer a refusal, count it, and note it for `status` if it is for a source in the tenants file."""
        tenant, source, _ = _place(request)
        if self.tenants.find(tenant, source) is None:
            self.measures.refused("", "", refused.status)
        else:
            self.measures.refused(tenant, source, refused.status)
            at = datetime.now(UTC).isoformat(timespec="seconds")
            self.recorder.refusals.keep(tenant, source, f"{at} {refused.status} {refused.detail}")
        return problem(refused.status, refused.detail, _HEADERS.get(refused.status, headers))


def _place(request: Request) -> tuple[str, str, str]:
    """The tenant and the source that a URL names, and the path below the source as sent, percent-encoded.

    All empty where the URL is none of our routes.
    """
    if "tenant" not in request.path_params:
        return "", "", ""
    _, _, tenant, source, *below = request.scope["path"].split("/", 4)
    return unquote(tenant), unquote(source), "".join(below)


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("alive\n")


async def _contract(_request: Request) -> Response:
    return Response(_CONTRACT, media_type="application/json")


def make_app(settings: Settings) -> Starlette:
    """The ASGI app. Raises ConfigurationError when the tenants file is wrong."""
    services = build(settings, patient=False)
    receiver = Receiver(services, Recorder(connect_recorder(settings), settings))

    presence = Presence(Process("web", f"{at_host('web')}:{settings.port}", services.tenants.digest))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(receiver.recorder.watch(presence))
        yield
        while not watch.done():  # Python 3.11's `wait_for`, in redis-py, may swallow a cancellation
            watch.cancel()
            await asyncio.wait([watch], timeout=0.5)
        with suppress(*UNAVAILABLE):
            await receiver.recorder.refusals.note(receiver.recorder.client)
            await run_in_threadpool(ended, services.redis, presence.name)
        await receiver.recorder.client.aclose()
        services.close()

    app = App(
        routes=_routes(receiver),
        exception_handlers={HTTPException: receiver.http_error, Exception: receiver.http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def _routes(receiver: Receiver) -> list[Route]:
    """The first is the one that most requests take (`App`)."""
    return [
        Route(DELIVERIES, receiver.accept, methods=["POST"]),
        *(Route(path.template, receiver.accept, methods=[path.method]) for _, path in paths_below()),
        Route("/v1/{tenant}/events/{id}", receiver.show, methods=["GET"]),
        Route("/healthz", _alive, methods=["GET"]),
        Route("/readyz", receiver.ready, methods=["GET"]),
        Route("/metrics", receiver.metrics, methods=["GET"]),
        Route("/openapi.json", _contract, methods=["GET"]),
    ]


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
        listening = listen(settings.host, settings.port, "HOST and PORT")
    except ConfigurationError as error:
        sys.exit(f"examrelay web: {error}")
    _LOG.info("web.started", host=settings.host, port=settings.port, durability=durability)
    uvicorn.Server(server_config(app, settings)).run(sockets=[listening])


def server_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the app."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_keep_alive=settings.keep_alive_seconds,
    )
