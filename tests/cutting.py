"""A proxy to Redis that loses a script's reply: the request arrives and has its effect, then the connection breaks."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CuttingProxy:
    """Passes everything on. After `lose_reply` it drops the next script's reply."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._before_cut: Callable[[], None] | None = None
        self.cuts = 0
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_reply(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Lose the next script's reply. `meanwhile` is called between its effect and the end of the connection."""
        self._before_cut = meanwhile

    def close(self) -> None:
        """No new connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        cut: Callable[[], None] | None = None
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._upstream)) as server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    told = source.recv(2**20)
                    if not told:
                        return
                    if source is server and cut:
                        self.cuts += 1
                        cut()
                        return
                    if source is client and b"EVALSHA" in told:
                        cut, self._before_cut = self._before_cut, None
                    (server if source is client else client).sendall(told)


@contextmanager
def cutting_proxy(port: int) -> Iterator[CuttingProxy]:
    """A proxy to the Redis on this port."""
    proxy = CuttingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
