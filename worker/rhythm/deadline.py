"""Connections that keep one deadline over connect, TLS, headers and body. For worker/rhythm/client.py alone.

`requests` gives each socket operation its own timeout: a peer that sends a byte a second is never cut off. urllib3's
`Timeout(total=...)` shares one budget between connecting and the start of the answer; what is added here makes the rest
of the answer, and several addresses of one host, live from that same budget. Only the resolver is out of reach.
"""

import http.client
import io
import socket
import time
from collections.abc import Sequence
from typing import Any

import urllib3
import urllib3.connection
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

_LEAST = 0.001


class _Answer(http.client.HTTPResponse):
    """An answer whose every read ends at the deadline, which is the socket's timeout when it begins."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        left = sock.gettimeout()
        if left is not None:
            self.fp: Any = io.BufferedReader(_UntilDeadline(self.fp.detach(), sock, time.monotonic() + left))


class _UntilDeadline(io.RawIOBase):
    """The socket's bytes until a monotonic instant; then TimeoutError."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        try:
            self._raw.close()
        finally:
            super().close()


class _Bounded(urllib3.connection.HTTPConnection):
    """A failure to get as far as sending is always NewConnectionError: the request certainly was not sent."""

    response_class = _Answer

    def connect(self) -> None:
        try:
            super().connect()
        except NewConnectionError:
            raise
        except (OSError, HTTPError) as error:
            raise NewConnectionError(self, "no connection") from error

    def _new_conn(self) -> socket.socket:
        deadline = time.monotonic() + (self.timeout or 0)
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]  # a gaierror, mostly
        try:
            return connected([str(address[0]) for *_, address in found], self.port, deadline, self.socket_options)
        except OSError as error:
            raise NewConnectionError(self, "no address answers") from error


def connected(hosts: Sequence[str], port: int, deadline: float, options: Any = None) -> socket.socket:
    """A socket connected to the first of `hosts` that answers, its timeout set to what is left until `deadline`.

    Each gets an equal share of the time that is left, so that one that is silent does not use up the others'. Raises
    the last one's OSError. `deadline` is a monotonic instant.
    """
    failed: OSError | None = None
    for tried, host in enumerate(hosts):
        share = (deadline - time.monotonic()) / (len(hosts) - tried)
        try:
            sock = create_connection((host, port), max(share, _LEAST), socket_options=options)
        except OSError as error:
            failed = error
        else:
            sock.settimeout(max(deadline - time.monotonic(), _LEAST))
            return sock
    raise failed or OSError("the host has no address")


class _BoundedTLS(_Bounded, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Bounded


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _BoundedTLS


#: For `urllib3.PoolManager.pool_classes_by_scheme`.
POOLS: dict[str, type[urllib3.HTTPConnectionPool]] = {"http": _Pool, "https": _TLSPool}
