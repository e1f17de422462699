"""The console's process: routes, who may have which page, headers, and what a page says when something fails.

Pages are made by the functions in ROUTES. They ask `tasks.operator` and decide nothing.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from importlib.resources import files
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.operator.answers import Refused
from worker import sentry, telemetry
from worker.bootstrap import Services, build
from worker.console import configuration, deciding, first_page, listings, one_event, signing_in, stray_messages
from worker.console.visit import Form, Refusal, Visit, render
from worker.errors import ConfigurationError, LedgerUnavailable, Unacceptable, Unchecked
from worker.ledger.client import LOADING, REFUSED, UNAVAILABLE
from worker.ledger.processes import EVERY, Presence, Process, at_host, ended
from worker.ledger.sealed import SealBroken, SealUnknown
from worker.settings import Settings, load_settings
from worker.sockets import listen
from worker.users import Role

#: A form with the ids of as many events as one act may move.
_FORM_BYTES: Final = 256 * 1024
_FORM_MEMBERS: Final = 2000
#: Nothing comes from elsewhere, nothing is kept, no other page may show or send ours.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_AWAY: Final = (
    "This page cannot reach Redis, so it cannot show anything. What was accepted is safe: it is on Redis' disk. New "
    "results are safe too: while the receiver cannot reach Redis either, it answers 503, and the platforms send them "
    "again. See that Redis runs and that REDIS_URL is right; then load this page again."
)
_LOADING_TEXT: Final = (
    "Redis has just started and is reading its data: what was accepted is safe. New results are refused with 503 for "
    "the moment, and the platforms send them again. Load this page again in a minute."
)
_REFUSES: Final = (
    "Redis is there and refuses this ({}). What was accepted is safe. If it takes no writes, new results are answered "
    "with 503, and the platforms send them again. `examrelay check` says what is wrong."
)
_SEALED: Final = "Stored data cannot be decrypted: {}. See EXAMRELAY_PAYLOAD_KEYS; nothing was changed."
_BUG: Final = (
    "This is a bug of ours, and it was reported. Nothing was lost. Go back and try again; else use the command."
)
_ADDRESS: Final = "EXAMRELAY_CONSOLE_HOST and EXAMRELAY_CONSOLE_PORT"
_LOG: Final = structlog.get_logger()

Page = Callable[[Visit], Response]
Public = Callable[[Services, Request, Form], Response]


class Place(NamedTuple):
    """A path of the console, the function that answers, and who may have it."""

    method: str
    path: str
    page: Page
    role: Role = Role.SEE


_EVENT: Final = "/events/{tenant}/{id}"
#: Nothing acts on GET. What shows personal data is a POST as well, because it notes a look in the history.
ROUTES: Final = (
    Place("GET", "/", first_page.show),
    Place("GET", "/events", listings.show),
    Place("POST", "/search", listings.search),
    Place("GET", _EVENT, one_event.show),
    Place("POST", f"{_EVENT}/look", one_event.look),
    Place("GET", "/decide", deciding.show),
    Place("GET", "/decide/{tenant}/{state}/{reason}", deciding.group),
    Place("POST", "/preview", deciding.preview, Role.ACT),
    Place("POST", "/act", deciding.act, Role.ACT),
    Place("GET", "/strays", stray_messages.show),
    Place("POST", "/strays/look", stray_messages.look),
    Place("POST", "/strays/act", stray_messages.act, Role.ACT),
    Place("GET", "/configuration", configuration.show),
    Place("POST", "/configuration/checks", configuration.try_out),
)
_PUBLIC: Final[tuple[tuple[str, str, Public], ...]] = (
    ("GET", "/sign-in", signing_in.ask),
    ("POST", "/sign-in", signing_in.sign_in),
    ("POST", "/sign-out", signing_in.sign_out),
)


class Hardened:
    """Adds the headers to every answer, errors and files included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith("/static/"):
                    headers["Cache-Control"] = "public, max-age=300"
            await send(message)

        await self._app(scope, receive, answer)


async def _posted(request: Request) -> Form:
    """The form of a POST, read whole. Raises Refusal."""
    if request.method != "POST":
        return Form()
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refusal(403, "Not done", "This form came from another site. Nothing was done.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _FORM_BYTES:
            raise Refusal(413, "Too much", "That is more than one form holds. Nothing was done. Take fewer at a time.")
    try:
        return Form(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FORM_MEMBERS))
    except ValueError:
        raise Refusal(400, "Not understood", "That is no form of this console. Nothing was done.") from None


def _guarded(at: Services, answer: Callable[[Request, Form], Response]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint: what goes wrong becomes a page that says what to do."""

    async def endpoint(request: Request) -> Response:
        try:
            return await run_in_threadpool(answer, request, await _posted(request))
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:  # noqa: BLE001  # the person has their answer
            return await run_in_threadpool(_failed, at, request, error)

    return endpoint


def _failed(at: Services, request: Request, error: Exception) -> Response:
    status, title, what = _words_for(error)
    if status == 500 and not isinstance(error, SealUnknown | SealBroken):
        sentry.report_bug(error, process="console")
    with suppress(*UNAVAILABLE):
        visit = None if isinstance(error, UNAVAILABLE) else _visit(at, request, Form())
        return HTMLResponse(render("failure.html", title, visit, what=what), status)
    return HTMLResponse(render("failure.html", title, None, what=what), status)


def _words_for(error: Exception) -> tuple[int, str, str]:
    """Status, title, and what to do."""
    match error:
        case Refusal():
            return error.status, error.title, error.what
        case ConfigurationError() | Refused() | Unacceptable():
            return 400, "Not done", f"Nothing was done: {error}"
        case Unchecked() | LedgerUnavailable():
            return 503, "Not done", f"Nothing was done: {error}"
        case SealUnknown() | SealBroken():
            return 500, "Cannot be read", _SEALED.format(error.args[0])
    if isinstance(error, LOADING):
        return 503, "Redis is starting", _LOADING_TEXT
    if isinstance(error, REFUSED):
        return 503, "Redis refuses", _REFUSES.format(error)
    if isinstance(error, UNAVAILABLE):
        return 503, "Redis cannot be reached", f"{_AWAY} ({type(error).__name__})"
    return 500, "A bug of ours", _BUG


def _visit(at: Services, request: Request, form: Form) -> Visit | None:
    session = signing_in.signed_in(at, request)
    return Visit(at, request, session[0], form, signing_in.form_token(session[1])) if session else None


def _for_people(at: Services, place: Place) -> Callable[[Request, Form], Response]:
    """A page for those who are signed in and may have it."""

    def answer(request: Request, form: Form) -> Response:
        visit = _visit(at, request, form)
        if visit is None:
            return RedirectResponse("/sign-in", 303)
        if request.method == "POST" and not signing_in.is_ours(form, request.cookies.get("examrelay_session", "")):
            raise Refusal(403, "Not done", "This form is not of your session. Load the page again, and try again.")
        if place.role is Role.ACT and not visit.may_act:
            raise Refusal(403, "Not for you", "You may look, not act. Nothing was done. Ask one who may act.")
        return place.page(visit)

    return answer


@asynccontextmanager
async def _present(at: Services) -> AsyncIterator[None]:
    """In the register of processes until the server ends."""
    presence = Presence(Process("console", f"{at_host('console')}:{at.settings.console_port}", at.tenants.digest))

    async def tell() -> None:
        while True:
            with suppress(*UNAVAILABLE):
                await run_in_threadpool(at.ledger.scripts, "seen", *presence.arguments())
            await asyncio.sleep(EVERY.total_seconds())

    telling = asyncio.create_task(tell())
    yield
    telling.cancel()
    with suppress(asyncio.CancelledError):
        await telling
    with suppress(*UNAVAILABLE):
        await run_in_threadpool(ended, at.redis, presence.name)


def make_app(at: Services) -> Starlette:
    """The ASGI app. `at` is closed by the caller."""

    async def http_error(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        words = Refusal(
            status, "Not found" if status == 404 else "Not so", "There is no such page. Begin at the overview."
        )
        return await run_in_threadpool(_failed, at, request, words)

    async def alive(_request: Request) -> Response:
        return PlainTextResponse("alive\n")

    def public(page: Public) -> Callable[[Request], Awaitable[Response]]:
        return _guarded(at, lambda request, form: page(at, request, form))

    routes: list[Any] = [
        *(Route(place.path, _guarded(at, _for_people(at, place)), methods=[place.method]) for place in ROUTES),
        *(Route(path, public(page), methods=[method]) for method, path, page in _PUBLIC),
        Route("/healthz", alive, methods=["GET"]),
        Mount("/static", StaticFiles(directory=str(files("worker.console") / "static"))),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Hardened)],
        exception_handlers={HTTPException: http_error},
        lifespan=lambda _app: _present(at),
    )
    app.router.redirect_slashes = False
    return app


def server_config(app: Starlette) -> uvicorn.Config:
    """How uvicorn serves it. Behind a proxy on this machine, `X-Forwarded-Proto` makes the cookies secure."""
    return uvicorn.Config(app, ws="none", log_config=None, access_log=False, lifespan="on", server_header=False)


def serve(settings: Settings) -> None:
    """Serve until a signal. Raises ConfigurationError."""
    telemetry.set_up(settings, "console")
    with (
        closing(build(settings, patient=False)) as at,
        closing(listen(settings.console_host, settings.console_port, _ADDRESS)) as listening,
    ):
        _LOG.info("console.started", host=settings.console_host, port=settings.console_port)
        uvicorn.Server(server_config(make_app(at))).run(sockets=[listening])


def main() -> None:
    """`python -m worker.console`: refuses to start on what cannot work, with one message."""
    try:
        serve(load_settings())
    except ConfigurationError as error:
        sys.exit(f"examrelay console: {error}")
