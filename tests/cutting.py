"""A proxy to Redis that breaks a script's connection: before its request arrives, or when it has had its effect."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

#: Where a connection is broken: the script never runs, or its reply is lost.
Side = Literal["before", "after"]


class CuttingProxy:
    """Passes everything on, and notes the scripts. At the one that `cut` says it breaks the connection."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._cut: tuple[int, Side, Callable[[], None]] | None = None
        self.cuts = 0
        #: The digests of the scripts that were called, in order.
        self.scripts: list[str] = []
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, number: int, side: Side, meanwhile: Callable[[], None]) -> None:
        """Break the connection at the script called as the `number`-th from now, right after calling `meanwhile`."""
        self._cut = (len(self.scripts) + number, side, meanwhile)

    def lose_reply(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Lose the next script's reply. `meanwhile` is called between its effect and the end of the connection."""
        self.cut(1, "after", meanwhile)

    def close(self) -> None:
        """No new connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        side: Side | None = None
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._upstream)) as server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    told = source.recv(2**20)
                    if not told:
                        return
                    if source is client and b"EVALSHA" in told:
                        side = self._side_of(told)
                    if side == "before" or (side and source is server):
                        self._break()
                        return
                    (server if source is client else client).sendall(told)

    def _side_of(self, request: bytes) -> Side | None:
        """Notes a script. Returns where its connection breaks, if it does."""
        self.scripts.append(request.split(b"EVALSHA", 1)[1].split(b"\r\n", 3)[2].decode())
        return self._cut[1] if self._cut and self._cut[0] == len(self.scripts) else None

    def _break(self) -> None:
        assert self._cut
        self.cuts += 1
        self._cut[2]()
        self._cut = None


@contextmanager
def cutting_proxy(port: int) -> Iterator[CuttingProxy]:
    """A proxy to the Redis on this port."""
    proxy = CuttingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
