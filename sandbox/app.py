"""The stand-in Rhythm over HTTP: admits a call, plays its faults, answers, and logs it."""

import asyncio
import contextlib
import socket
import struct
import time
from typing import Any
from urllib.parse import unquote

from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.access import admit
from sandbox.calls import Call, Refused, parse
from sandbox.endpoints import answer
from sandbox.options import Fault
from sandbox.world import Acts, World

#: SO_LINGER without time: closing sends RST, as a dying peer does.
_NO_LINGER = struct.pack("ii", 1, 0)


class App:
    """Rhythm's own face, and `/_sandbox` for those who test with it (no authorisation: loopback only)."""

    def __init__(self) -> None:
        self.acts = Acts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["path"].startswith("/_sandbox/"):
            response: Response | None = await self._act(request)
        else:
            response = await _respond(self.acts.world, request)
        await (_cut(request) if response is None else response(scope, receive, send))

    async def _act(self, request: Request) -> Response:
        """What the caller got wrong is 422, with the reason."""
        act, *places = [unquote(part) for part in request.scope["raw_path"].decode().split("/")[2:]]
        try:
            named = from_json(await request.body() or b"{}")
            return Answer(getattr(self.acts, act)(*places, **named))
        except (AttributeError, LookupError, TypeError, ValueError) as mistake:  # pydantic's and JSON's are ValueErrors
            return Answer(f"{type(mistake).__name__}: {mistake}", 422)


class Answer(Response):
    """JSON; pydantic's encoder is faster than Starlette's."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content)


async def _respond(world: World, request: Request) -> Response | None:
    """None is no answer at all."""
    at, call = time.time(), parse(request.scope, await request.body())
    entry = world.log.begin(call, at)
    try:
        response = await _serve(world, call, request)
    except Refused as refused:
        response = Answer(refused.body, refused.status, refused.headers)
    world.log.end(entry, response)
    return response


async def _serve(world: World, call: Call, request: Request) -> Response | None:
    if call.kind == "unknown":
        raise Refused(404, "The resource could not be found")
    if call.kind != "token":
        admit(world, call)
    slow = world.fault(call, call.ids, "latency")
    if latency_ms := world.options.latency_ms + (slow.ms if slow else 0):
        await asyncio.sleep(latency_ms / 1000)
    fault = world.fault(call, call.ids, "status", "hang", "reset", "apply_then_lose", "apply_late")
    return await _play(fault, world, call, request) if fault else Answer(answer(world, call))


async def _play(fault: Fault, world: World, call: Call, request: Request) -> Response | None:
    match fault.action:
        case "status":
            return Answer(fault.body, fault.status, fault.headers)
        case "hang" if fault.seconds is not None:
            await asyncio.sleep(fault.seconds)
            return Answer(answer(world, call))
        case "hang":
            await _client_gone(request)
        case "apply_then_lose":
            _apply_unheard(world, call)
        case "apply_late":
            asyncio.get_running_loop().call_later(fault.delay_ms / 1000, _apply_unheard, world, call)
    return None


def _apply_unheard(world: World, call: Call) -> None:
    with contextlib.suppress(Refused):
        answer(world, call)


async def _cut(request: Request) -> None:
    """Reset the connection (`__main__` puts the transport into the scope) and wait until the server has seen it."""
    transport = request.scope["state"]["transport"]
    if not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()
    await _client_gone(request)


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
