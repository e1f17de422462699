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


class _Protocol(HttpToolsProtocol):
    """Puts the transport into the scope, so that a fault can reset a real connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["transport"] = self.transport


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="A stand-in Rhythm.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one and says which")
    parser.add_argument("--keep", type=Path, help="the registrations of an earlier run, and of this one at its end")
    arguments = parser.parse_args()
    app = App()
    if arguments.keep and arguments.keep.exists():
        app.acts.world.registrations.take(json.loads(arguments.keep.read_text()))
    # Listening already: who connects from here on is answered as soon as the loop runs.
    listening = socket.create_server(("127.0.0.1", arguments.port), backlog=2048)
    # uvicorn stops on these, and then raises them again for the handler that was there before: which exits 0.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        app,
        http=_Protocol,
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_level="critical",
        date_header=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    sys.stdout.write(f"sandbox ready on http://127.0.0.1:{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    try:
        uvicorn.Server(config).run([listening])
    finally:
        if arguments.keep:
            arguments.keep.write_text(json.dumps(app.acts.world.registrations.kept()))


if __name__ == "__main__":
    main()
