"""`python -m sandbox`: serves the stand-in Rhythm until SIGTERM or SIGINT, then exits 0."""

import argparse
import json
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sandbox.app import App
from sandbox.face import seed


class _Protocol(HttpToolsProtocol):
    """Puts the transport into the scope, so that a fault can reset a real connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["transport"] = self.transport


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="A stand-in Rhythm.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one and says which")
    parser.add_argument("--seed", type=Path, help="JSON file: {tenant: [registration, ...]}")
    return parser.parse_args()


def main() -> None:
    arguments, app = _arguments(), App()
    if arguments.seed:
        seed(app.world, json.loads(arguments.seed.read_text()))
    # uvicorn stops on these, and then raises them again for the handler that was there before: which exits 0.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        app, http=_Protocol, loop="uvloop", lifespan="off", access_log=False, log_level="critical", date_header=False,
        server_header=False, timeout_keep_alive=75, timeout_graceful_shutdown=1,
    )  # fmt: skip
    # Listening already: who connects from here on is answered as soon as the loop runs.
    listening = socket.create_server((arguments.host, arguments.port), backlog=2048)
    sys.stdout.write(f"sandbox ready on http://{arguments.host}:{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
