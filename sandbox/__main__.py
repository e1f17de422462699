"""`python -m sandbox`: serves the stand-in Rhythm until SIGTERM or SIGINT, then exits 0."""

import argparse
import signal
import socket
import sys

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
    # Listening already: who connects from here on is answered as soon as the loop runs.
    listening = socket.create_server(("127.0.0.1", parser.parse_args().port), backlog=2048)
    # uvicorn stops on these, and then raises them again for the handler that was there before: which exits 0.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        App(),
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
    uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
