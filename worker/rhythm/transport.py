"""How a call to Rhythm, or to its token endpoint, is sent and its answer read. The only module that imports requests.

Nothing is taken from the environment (HTTPS_PROXY, REQUESTS_CA_BUNDLE, .netrc): the way to each tenant's Rhythm is in
the tenants file. Through a proxy too a call has one deadline, and what happens before the proxy has made the connection
was certainly not sent. A proxy that is down, refuses or hangs is no connection to Rhythm, like any other.
"""

import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from worker.remote import RhythmConnection
from worker.rhythm.deadline import DEADLINE, POOLS
from worker.rhythm.failures import Call, RhythmUnavailable

#: The rest of a longer answer is not read. A page of 100 registrations is far shorter.
LARGEST_ANSWER = 16 * 2**20
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "examrelay"}


class Answer(NamedTuple):
    """What came back. Of a `content` that is longer than `LARGEST_ANSWER`, one byte more than that."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class _BoundedAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """As the adapter's, but it fails on a login that is not Latin-1."""
        login, at, _ = proxy.partition("://")[2].rpartition("@")
        return {"Proxy-Authorization": f"Basic {b64encode(unquote(login).encode()).decode()}"} if at else {}


def open_session() -> requests.Session:
    """A session for all tenants of one process. Open it after the fork; close it at the end. It repeats nothing."""
    session = requests.Session()
    session.trust_env = False
    for prefix in ("http://", "https://"):
        session.mount(prefix, _BoundedAdapter(max_retries=0))
    return session


class Transport:
    """The way to one tenant's Rhythm."""

    def __init__(self, session: requests.Session, connection: RhythmConnection) -> None:
        self._session = session
        self._seconds = connection.timeout_seconds
        self._verify = connection.ca_file or True
        self._proxies = {"https": connection.proxy.get_secret_value()} if connection.proxy else {}
        self._way = " through the proxy" if self._proxies else ""

    def send(self, call: Call, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
        """One request, one answer, one deadline. Raises RhythmUnavailable.

        The request is built by hand: `Session.request` costs as much again.
        """
        request = requests.PreparedRequest()
        request.method, request.url, request.body = call.method, url, body
        request.headers = CaseInsensitiveDict(_HEADERS | headers)
        if body is not None:
            request.headers.setdefault("Content-Type", "application/json")
            request.headers["Content-Length"] = str(len(body))
        ends = time.monotonic() + self._seconds
        DEADLINE.set(ends)
        way: dict[str, Any] = {"timeout": self._seconds, "verify": self._verify, "proxies": self._proxies}
        try:
            return _read(self._session.get_adapter(url).send(request, stream=True, **way))
        except (OSError, urllib3.exceptions.HTTPError) as error:  # all of requests' are OSErrors
            failure = self._lost(call, error, time.monotonic() >= ends)
        raise failure  # outside the except block: the text of the error that it would carry along has the URL

    def _lost(self, call: Call, error: Exception, late: bool) -> RhythmUnavailable:
        """The failure of a request without a whole answer; `late` when the deadline ended it."""
        if not isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
            return RhythmUnavailable(f"{call} cannot be sent: the file with the authorities' certificates has gone")
        reason = getattr(error.args[0], "reason", None) if error.args else None
        reason = getattr(reason, "original_error", reason)  # of a ProxyError
        if isinstance(reason, urllib3.exceptions.NewConnectionError):
            cause = reason.__cause__
            message = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None) or type(cause).__name__
            return RhythmUnavailable(f"no connection{self._way} for {call}: {message}")
        if isinstance(error, ValueError):  # InvalidURL and its like
            return RhythmUnavailable(f"{call} cannot be sent: is the url right?")
        within = f"no whole answer to {call} within {self._seconds:g} s"
        return RhythmUnavailable(within if late else f"the connection broke during {call}", maybe_applied=call.writes)


def _read(response: requests.Response) -> Answer:
    """The answer, its body at most one byte longer than allowed. Of a refusal only status and headers matter."""
    content = b""
    try:
        content = response.raw.read(LARGEST_ANSWER + 1, decode_content=True)
    except urllib3.exceptions.HTTPError:
        if response.status_code < 300:
            raise
    finally:
        response.close()  # a connection whose answer was read to its end is used again
    return Answer(response.status_code, response.headers, content)
