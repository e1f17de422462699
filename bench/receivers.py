"""The receivers that ours is measured against. Run: `python -m bench.receivers lpush|apply_async PORT`.

`lpush` is the least a receiver can do and still keep what it accepts: bare ASGI, the body pushed onto a list.
`apply_async` is what a competent user writes. All three run on uvicorn with uvloop and httptools, on a Redis
that fsyncs.
"""

import socket
import sys
from typing import Any

import redis.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bench import naive

_CLIENT = redis.asyncio.Redis.from_url(naive.REDIS_URL, max_connections=64)
_START = {"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]}


async def lpush(scope: Scope, receive: Receive, send: Send) -> None:
    """Push the body, answer 202."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await _CLIENT.lpush("pushed", body)  # type: ignore[misc,unused-ignore]
    await send(_START)
    await send({"type": "http.response.body"})


async def _apply(request: Request) -> Response:
    payload = await request.json()
    await run_in_threadpool(naive.sync.delay, payload)
    return JSONResponse({"accepted": True}, 202)


apply_async = Starlette(routes=[Route("/{rest:path}", _apply, methods=["POST"])])


def main(kind: str, port: int) -> None:
    """Serve until a signal ends it."""
    app: Any = {"lpush": lpush, "apply_async": apply_async}[kind]
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", log_config=None, access_log=False, lifespan="off", log_level="warning"
    )
    uvicorn.Server(config).run([socket.create_server(("127.0.0.1", port), backlog=2048)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
