"""A connection of the receiver: bounded in time and memory, and without `Upgrade`, with which uvicorn's loses a body.

Every Java client sends that header on plain HTTP, and `curl --http2` too. A server may ignore it (RFC 9110, 7.8): the
parser gets the head of the request again without it, and then reads the body and whatever follows.
"""

import json
from asyncio import TimerHandle
from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

#: About the largest head of a request, and what may come after its body; uvicorn has no limit. Checked between two
#: reads of up to 256 KiB.
HEAD_AT_MOST: Final = 128 * 1024
_HEADERS_AT_MOST: Final = 256
#: Requests that wait for the answers before them. All others of a read would be taken apart before anybody has a turn.
_WAITING_AT_MOST: Final = 32
#: From its first byte on a request has so long to come whole, and its sender to read the answer.
REQUEST_SECONDS: Final = 120


class Connection(HttpToolsProtocol):
    """Reads a request as if it had no `Upgrade`. Refuses what is not HTTP without a line in the log."""

    #: Bytes that have come since the request's begin or since the last that belonged to its body.
    _head = 0
    _in_head = True
    #: Ends the connection; None while it is idle.
    _end: TimerHandle | None = None
    seconds: float = REQUEST_SECONDS

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """A connection without a request is as idle as one between two."""
        super().__init__(*arguments, **named)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        self._unset_end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._head += len(data)
        if self._end is None:
            self._end = self.loop.call_later(self.seconds, self._too_late)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_without_upgrade(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("not HTTP that can be read")
        if self._head > HEAD_AT_MOST or len(self.headers or ()) > _HEADERS_AT_MOST:
            self._refuse(431, "the headers are too many or too long")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.pipeline) >= _WAITING_AT_MOST:
            self.transport.close()  # without an answer: it would be taken for that to the first request
            raise httptools.HttpParserError
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self._in_head:
            self._unset_end()

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()  # not `close`, which waits for who does not read

    def on_message_complete(self) -> None:
        """With `Upgrade` the parser calls this at the end of the head already."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Overrides uvicorn's, which calls it for what it cannot parse."""
        self._refuse(400, msg)

    def _unset_end(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _too_late(self) -> None:
        if self._in_head or not self.cycle.response_complete:
            self._refuse(408, f"the request took over {self.seconds:g} s")
            self.loop.call_later(1, self.transport.abort)  # who does not read is not waited for
        else:
            self.transport.close()  # the rest of a body came behind its answer, and then nothing

    def _read_without_upgrade(self, rest: memoryview) -> None:
        """Loops when several such requests have come at once."""
        while True:
            if self.parser.get_method() == b"CONNECT":
                self.send_400_response("this is no proxy")
                return
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            try:
                self.parser.feed_data(head)
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("not HTTP that can be read")
                return
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        first = (self.parser.get_method(), b" ", self.url, b" HTTP/", self.parser.get_http_version().encode(), b"\r\n")
        lines = (name + b": " + value + b"\r\n" for name, value in self.headers if name != b"upgrade")
        return b"".join((*first, *lines, b"\r\n"))

    def _refuse(self, status: int, detail: str) -> None:
        """Answer and close. A request whose body is not complete gets this answer too, and is not recorded."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        document = json.dumps({"status": status, "title": HTTPStatus(status).phrase, "detail": detail}).encode()
        head = (
            STATUS_LINE[status],
            b"content-type: application/problem+json\r\nconnection: close\r\n",
            b"content-length: %d\r\n\r\n" % len(document),
        )
        self.transport.write(b"".join((*head, document)))
        self.transport.close()
