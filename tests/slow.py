"""A proxy to Redis whose answers come late."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread


class SlowProxy:
    """A way to a Redis whose answers come late by so many seconds."""

    def __init__(self, listener: socket.socket, port: int) -> None:
        self.seconds = 0.0
        self.url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        self._listener, self._port = listener, port

    def accept_all(self) -> None:
        """Serve until the listener is closed. While Redis is away a connection is closed at once."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    client.close()
                    continue
                Thread(target=self._pass_on, args=(client, server, False), daemon=True).start()
                Thread(target=self._pass_on, args=(server, client, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, late: bool) -> None:
        with source, target:
            with suppress(OSError):
                while data := source.recv(2**20):
                    time.sleep(self.seconds if late else 0)
                    target.sendall(data)
            for each in (source, target):  # wakes the thread of the other direction
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


@contextmanager
def slow_proxy(port: int) -> Iterator[SlowProxy]:
    """A proxy to the Redis on this port; it delays nothing until it is told."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = SlowProxy(listener, port)
        Thread(target=proxy.accept_all, daemon=True).start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
