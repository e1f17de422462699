"""The stand-in Rhythm over HTTP: admits a call, plays its faults, answers, and logs it.

Bare ASGI for Rhythm's own face, so that the stand-in is never the bottleneck; Starlette for `/_sandbox`.
"""

import asyncio
import contextlib
import socket
import struct
import time

from starlette.types import Receive, Scope, Send

from sandbox.admission import authorize
from sandbox.calls import Call, Refused, Reply, encode, parse
from sandbox.endpoints import World, answer
from sandbox.face import control_face
from sandbox.faults import Fault

#: SO_LINGER without time: closing sends RST, as a dying peer does.
_NO_LINGER = struct.pack("ii", 1, 0)


class App:
    """One process, one event loop: no locks. `world` is replaced by a reset."""

    def __init__(self) -> None:
        self.world = World()
        self._face = control_face(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/_sandbox"):
            await self._face(scope, receive, send)
            return
        world, call = self.world, await _read(scope, receive)
        entry = world.log.begin(call)
        try:
            reply = await _serve(world, call, receive)
        except Refused as refused:
            reply = refused.reply
        world.log.end(call, entry, reply)
        if reply is None:
            await _cut(scope, receive)
        else:
            await _send(reply, send)


async def _read(scope: Scope, receive: Receive) -> Call:
    at, raw, more = time.time(), b"", True
    while more:
        message = await receive()
        raw += message.get("body", b"")
        more = message.get("more_body", False)
    authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"").decode("latin-1")
    return parse(at, scope["method"], scope["raw_path"].decode(), scope["query_string"].decode(), authorization, raw)


async def _serve(world: World, call: Call, receive: Receive) -> Reply | None:
    """The answer; None is none at all, and the connection is cut."""
    if call.kind == "unknown":
        raise Refused(404, "The resource could not be found")
    if call.kind != "token":
        authorize(world.options, world.tokens, call)
        if world.options.rate_limit is not None:
            world.pace.take(world.options.rate_limit, call.tenant)
    latency_ms = world.options.latency_ms + world.faults.latency_ms(call)
    if latency_ms:
        await asyncio.sleep(latency_ms / 1000)
    fault = world.faults.of_call(call)
    return answer(world, call) if fault is None else await _play(fault, world, call, receive)


async def _play(fault: Fault, world: World, call: Call, receive: Receive) -> Reply | None:
    match fault.action:
        case "status":
            return Reply(fault.status, fault.body, fault.headers)
        case "hang":
            return await _hang(fault, world, call, receive)
        case "apply_then_lose":
            _apply_unheard(world, call)
        case "apply_late":
            asyncio.get_running_loop().call_later(fault.delay_ms / 1000, _apply_unheard, world, call)
    return None


async def _hang(fault: Fault, world: World, call: Call, receive: Receive) -> Reply | None:
    early = answer(world, call) if fault.applied == "first" else None
    if fault.seconds is None:
        await _client_gone(receive)
        return None
    await asyncio.sleep(fault.seconds)
    return early or answer(world, call)


def _apply_unheard(world: World, call: Call) -> None:
    with contextlib.suppress(Refused):
        answer(world, call)


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(reply: Reply, send: Send) -> None:
    body = encode(reply.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(name.encode(), value.encode()) for name, value in reply.headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _cut(scope: Scope, receive: Receive) -> None:
    """Reset the connection (`__main__` puts the transport into the scope) and wait until the server has seen it."""
    transport = scope["state"]["transport"]
    if not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()
    await _client_gone(receive)
