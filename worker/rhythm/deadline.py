"""Connections whose every step (connect, TLS, sending, headers, body) ends at one deadline. For transport.py alone.

`requests` gives each socket operation its own timeout: a peer that sends a byte a second is never cut off. Here each
socket operation gets the time that is left until `DEADLINE`. Only the resolver is out of reach. This builds on private
parts of urllib3 and http.client (`_new_conn`, `_tunnel`, `fp`), which test_rhythm_faults.py and test_rhythm_proxy.py in
tests/integration hold over sockets.
"""

import errno
import http.client
import io
import re
import socket
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import urllib3
import urllib3.connection
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util.connection import create_connection

#: What http.client raises when a proxy does not answer 200.
_REFUSAL = re.compile(r"Tunnel connection failed: (\d+)")
#: The monotonic instant at which this thread's current request ends. To be set before each request.
DEADLINE: ContextVar[float] = ContextVar("DEADLINE")


def _left() -> float:
    left = DEADLINE.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


class _BoundedReader(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp: Any = io.BufferedReader(_BoundedReader(self.fp.detach(), sock))


class _Bounded(urllib3.connection.HTTPConnection):
    """Every failure before sending begins is a NewConnectionError: the request certainly was not sent."""

    response_class = _BoundedResponse

    def connect(self) -> None:
        try:
            super().connect()
        except NewConnectionError:
            raise
        except (OSError, UnicodeError, HTTPError, http.client.HTTPException) as error:
            raise NewConnectionError(self, "no connection") from error

    def _tunnel(self) -> None:
        """Ask the proxy for the connection. Of a refusal the status is kept, and none of the proxy's words."""
        try:
            super()._tunnel()
        except OSError as error:
            status = _REFUSAL.match(str(error))
            raise OSError(errno.EHOSTUNREACH, f"the proxy answers {status[1]}") if status else error from None
        self.sock.settimeout(max(DEADLINE.get() - time.monotonic(), 0.001))  # for the TLS handshake

    def _new_conn(self) -> socket.socket:
        addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return connected([str(address[0]) for *_, address in addresses], self.port, self.socket_options)

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(_left())
        super().send(data)


def connected(hosts: Sequence[str], port: int, options: Any = None) -> socket.socket:
    """A socket connected to the first of `hosts` that answers, its timeout set to what is left until the deadline.

    Each host gets an equal share of the time that is left, so that a silent one does not use up the time of the others.
    Raises the last one's OSError.
    """
    failure = OSError("the host has no address")
    for tried, host in enumerate(hosts):
        try:
            sock = create_connection((host, port), _left() / (len(hosts) - tried), socket_options=options)
        except OSError as error:
            failure = error
        else:
            sock.settimeout(max(DEADLINE.get() - time.monotonic(), 0.001))  # for the TLS handshake
            return sock
    raise failure


class _BoundedTLS(_Bounded, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Bounded


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _BoundedTLS


#: For `urllib3.PoolManager.pool_classes_by_scheme`.
POOLS: dict[str, type[urllib3.HTTPConnectionPool]] = {"http": _Pool, "https": _TLSPool}
