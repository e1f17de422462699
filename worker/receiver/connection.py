"""A connection of the receiver. It ignores `Upgrade`, with which uvicorn's own loses a request's body.

Every Java client sends that header on plain HTTP, and `curl --http2` too. A server may ignore it (RFC 9110, 7.8): the
parser gets the head of the request again without it, and then reads the body and whatever follows.
"""

import json
from http import HTTPStatus
from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

#: About the largest head of a request; uvicorn has no limit. Checked between two reads of up to 256 KiB.
HEAD_AT_MOST: Final = 128 * 1024
_HEADERS_AT_MOST: Final = 256


class Connection(HttpToolsProtocol):
    """Reads a request as if it had no `Upgrade`. Refuses what is not HTTP without a line in the log."""

    #: Bytes that have come of a head that is not complete.
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
        """With `Upgrade` the parser calls this at the end of the head already."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Overrides uvicorn's, which calls it for what it cannot parse."""
        self._refuse(400, msg)

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
