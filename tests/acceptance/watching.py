"""What others can see of tasks: Celery's events, answers to `inspect`, and what is sent to Sentry."""

import base64
import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import celery

from tests.acceptance.stack import Stack
from tests.running import free_port


class Collector:
    """A Sentry server that keeps what it receives."""

    def __init__(self) -> None:
        self.port = free_port()
        self.dsn = f"http://key@127.0.0.1:{self.port}/1"
        self.received: list[bytes] = []

    def all(self) -> list[tuple[str, dict[str, Any]]]:
        """Each item of each envelope: its type, and what it holds."""
        found = []
        for envelope in list(self.received):
            lines = [line for line in envelope.split(b"\n")[1:] if line]
            found += [
                (json.loads(head)["type"], json.loads(body)) for head, body in zip(*[iter(lines)] * 2, strict=True)
            ]
        return [(kind, item) for kind, item in found if kind != "client_report"]

    def items(self, kind: str) -> list[dict[str, Any]]:
        """Those of one type."""
        return [item for one, item in self.all() if one == kind]


@contextmanager
def collecting() -> Iterator[Collector]:
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.received.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", made.port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


class Watch:
    """All that Flower could see while a block runs: what goes over pub/sub, and the answers to `inspect`."""

    def __init__(self, stack: Stack) -> None:
        self.app = celery.Celery(broker=stack.valkey.url, set_as_current=False)
        self.events: list[dict[str, Any]] = []
        self.answers: list[Any] = []
        self._pubsub = stack.client.pubsub()
        self._pubsub.psubscribe("*")
        self._over = threading.Event()
        self._threads = [threading.Thread(target=one) for one in (self._listen, self._ask)]

    def __enter__(self) -> "Watch":
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for one in self._threads:
            one.join()
        self._pubsub.close()

    def _listen(self) -> None:
        while not self._over.is_set():
            message = self._pubsub.get_message(ignore_subscribe_messages=True, timeout=0.1)
            if message:
                body = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
                self.events += body if isinstance(body, list) else [body]

    def _ask(self) -> None:
        with self.app.connection_for_read() as connection:
            inspect = self.app.control.inspect(timeout=0.3, connection=connection)
            while not self._over.is_set():
                self.answers += [inspect.active(), inspect.reserved(), inspect.scheduled(), inspect.stats()]

    def kinds(self) -> set[str]:
        """The kinds of events of `tasks.receive` that were seen."""
        ours = {event["uuid"] for event in self.events if event.get("name") == "tasks.receive"}
        return {event["type"] for event in self.events if event.get("uuid") in ours}
