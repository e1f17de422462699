"""The receiver's ASGI app: Starlette, routed by the path as it was sent; and its error answers."""

from http import HTTPStatus

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Message, Receive, Scope, Send

from worker import sentry


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as `application/problem+json` (RFC 9457)."""
    document = {"status": status, "title": HTTPStatus(status).phrase, "detail": detail}
    return JSONResponse(document, status, headers, media_type="application/problem+json")


def bug_answer() -> Response:
    """500: the sender may try again."""
    return problem(500, "a bug of ours: send it again", {"Retry-After": "60"})


_LOG = structlog.get_logger()


class App(Starlette):
    """Starlette, routed by the path as it was sent: a `%2F` in an event's id divides nothing, nor does a last `/`.

    A bug is reported here without what caused it; uvicorn would log the whole request.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        path = scope["raw_path"].decode("latin-1").partition("?")[0]
        scope["path"] = path.removesuffix("/") or "/"
        hung_up = False

        async def answer(message: Message) -> None:
            nonlocal hung_up
            try:
                await send(message)
            except RuntimeError:  # uvloop's, for a connection that its client has reset
                hung_up = True
                raise

        try:
            await self._answer(scope, receive, answer)
        except Exception as error:  # noqa: BLE001  # the sender has its answer: 500
            if hung_up:
                _LOG.info("answer.unheard")
            else:
                sentry.report_bug(error, process="web")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The first route skips Starlette's middleware and router, which take a fifth of a delivery's time."""
        deliveries = self.routes[0]
        assert isinstance(deliveries, Route)
        matches, matched = deliveries.matches(scope)
        if matches is not Match.FULL:
            await super().__call__(scope, receive, send)
            return
        scope.update(matched)
        try:
            response = await deliveries.endpoint(Request(scope, receive))
        except Exception:
            await bug_answer()(scope, receive, send)
            raise
        await response(scope, receive, send)
