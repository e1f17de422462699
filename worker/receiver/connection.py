"""A connection of the receiver: uvicorn's, which would lose the body of a request with `Upgrade`, and say it was empty.

Every Java client sends one on plain HTTP, and `curl --http2` too. A server may ignore it (RFC 9110, 7.8), and here it
is: the parser gets the head of the request again without it, and so reads the body and what comes behind it.
"""

import json
from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

#: Of a request's head, about: uvicorn has no limit. Looked at between two reads of up to 256 KiB.
HEAD_AT_MOST: Final = 128 * 1024
_HEADERS_AT_MOST: Final = 256
_TITLES: Final = {400: "Bad request", 431: "Request header fields too large"}


class Connection(HttpToolsProtocol):
    """Reads a request as if it had no `Upgrade`. What is no HTTP is refused without a line in the log."""

    #: How much of a head has come that is not whole yet.
    _head = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._in_head:
            self._head += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_without_upgrade(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("not HTTP that can be read")
        if (self._in_head and self._head > HEAD_AT_MOST) or len(self.headers or ()) > _HEADERS_AT_MOST:
            self._refuse(431, "the headers are too many or too long")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Of a request with `Upgrade` the parser says so at the end of its head."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, which calls it for what it cannot parse."""
        self._refuse(400, msg)

    def _read_without_upgrade(self, rest: memoryview) -> None:
        """Once for each such request that stands behind the other in what has come."""
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
        """Answer and close. This is the answer to a request whose body nobody has read yet, too: it is not recorded."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        told = json.dumps({"status": status, "title": _TITLES[status], "detail": detail}).encode()
        head = (
            STATUS_LINE[status],
            b"content-type: application/problem+json\r\nconnection: close\r\n",
            b"content-length: %d\r\n\r\n" % len(told),
        )
        self.transport.write(b"".join((*head, told)))
        self.transport.close()
