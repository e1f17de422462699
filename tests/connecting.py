"""An egress proxy: it answers CONNECT, wants a login if told so, and can be scripted to refuse, lie or hang."""

import contextlib
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: What it does with a CONNECT instead of connecting; the event is set when the test is over.
Act = Callable[[socket.socket, threading.Event], None]


class ConnectProxy:
    """On loopback. `asked` are the requests that it got; `passed` is what went through it towards the server."""

    def __init__(self, login: str = "", act: Act | None = None) -> None:
        self._wanted = f"Proxy-Authorization: Basic {b64encode(login.encode()).decode()}" if login else ""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.act = act
        self.asked: list[str] = []
        self.passed = bytearray()
        self._over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections, and end what hangs."""
        self._over.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # a thread that waits in accept() would keep it open
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listening.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1) or b"\r\n\r\n"
            self.asked.append(head.decode())
            if self.act is not None:
                self.act(client, self._over)
            elif self._wanted not in self.asked[-1]:
                client.sendall(b"HTTP/1.1 407 Who are you, MARKED?\r\nContent-Length: 0\r\n\r\n")
            else:
                self._connect(client, self.asked[-1].split()[1])

    def _connect(self, client: socket.socket, where: str) -> None:
        host, _, port = where.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as server:
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            threading.Thread(target=self._answers, args=(server, client), daemon=True).start()
            while said := client.recv(65536):
                self.passed += said
                server.sendall(said)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while said := server.recv(65536):
                client.sendall(said)


@contextmanager
def connect_proxy(login: str = "", act: Act | None = None) -> Iterator[ConnectProxy]:
    """One that wants `user:password` if that is given, or does `act` with each request."""
    proxy = ConnectProxy(login, act)
    try:
        yield proxy
    finally:
        proxy.close()
