"""One tenant's Rhythm over HTTP. The only module that imports requests.

Every call takes the tenant's token at the gate right before it is sent, ends at one deadline, follows no redirect and
is never repeated here, but for a read of the next page and one new try after a 401 with a fresh token. What a failure
means is decided in worker/rhythm/failures.py; each error here is one of its classes.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import requests
import urllib3
from pydantic import TypeAdapter, ValidationError
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from schemas.rhythm import BATCH_LIMIT, REGISTRATION_ID, BatchReply, Page, PatchOperation, Registration, encode
from worker.rhythm.auth import Clock, TokenStore, token_source, utc_now
from worker.rhythm.batch import ItemResult, read_results
from worker.rhythm.deadline import POOLS
from worker.rhythm.failures import (
    MissingReference,
    RegistrationGone,
    RhythmRejected,
    RhythmUnavailable,
    refusal,
)
from worker.tenants import RhythmConnection

#: A longer answer is not read to its end: no page of 100 registrations comes near.
LARGEST_ANSWER = 16 * 2**20
#: A registration that cannot exist: to read it owes nothing to any event.
_NOBODY = "examrelay-probe"
#: No registration has such a version.
REFUSED_PATCH = (PatchOperation(op="test", path="/sys_version", value=-1),)
#: Longest part of a path: DynamoDB, under Rhythm, has no longer key.
_LONGEST_KEY = 1024

_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "examrelay"}

_T = TypeVar("_T")
_REGISTRATION = TypeAdapter(Registration)
_PAGE: TypeAdapter[Page | list[Registration]] = TypeAdapter(Page | list[Registration])
_BATCH = TypeAdapter(BatchReply)


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes


class _BoundedAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS


def open_session() -> requests.Session:
    """A session for all tenants of one process. Open it after the fork; close it at the end.

    It takes nothing from the environment (proxies, .netrc) and repeats nothing.
    """
    session = requests.Session()
    session.trust_env = False
    for prefix in ("http://", "https://"):
        session.mount(prefix, _BoundedAdapter(max_retries=0))
    return session


class Rhythm:
    """The calls of one tenant. Each method may raise what `take_token` raises, and any transient error of this module.

    `take_token` is called right before each HTTP call to Rhythm is sent. `tokens` shares OAuth tokens between
    processes.
    """

    def __init__(
        self,
        connection: RhythmConnection,
        session: requests.Session,
        take_token: Callable[[], None],
        tokens: TokenStore,
        now: Clock = utc_now,
    ) -> None:
        self._url = f"{connection.url.rstrip('/')}/examRegistrations/{quote(connection.tenant_id, safe='')}"
        self._session = session
        self._take_token = take_token
        self._seconds = connection.timeout_seconds
        self._as_text = connection.patch_values == "string"
        self._extra: dict[str, Any] = {"object": {}} if connection.batch_object else {}
        self._now = now
        self._source = token_source(connection.credentials, tokens, self._post_form, now)

    def get(self, id: str, consistent: bool = False) -> Registration | None:
        """The registration, or None: there is none, or `id` cannot be one's. `consistent`: never an older state.

        ---
        Rhythm, Exam Registrations API: Returns a exam registration from the system by its ID (`consistentRead`).
        """
        if not REGISTRATION_ID.fullmatch(id):
            return None
        url = f"{self._url}/{quote(id, safe='')}{'?consistentRead=true' if consistent else ''}"
        try:
            content = self._call("a read", "GET", url)
        except RegistrationGone:
            return None
        return self._registration("a read", id, content, write=False)

    def probe(self, writing: bool = False) -> None:
        """The cheapest call there is: 200 or 404, Rhythm answers and takes our credentials. Raises a transient error.

        `writing`: whether we may write. A patch for a registration that does not exist, and whose `test` cannot hold.
        """
        try:
            if writing:
                self.patch(_NOBODY, REFUSED_PATCH)
            else:
                self.get(_NOBODY)
        except (RegistrationGone, RhythmRejected, MissingReference):
            pass  # an answer, too

    def search(
        self, ids: Sequence[str] | None = None, email: str | None = None, exam_ids: Sequence[str] | None = None
    ) -> list[Registration]:
        """The registrations that fit all that is given, each once, all pages. May be behind: no consistent read here.

        Ids that cannot be a registration's are left out. Raises ValueError when nothing is given.

        ---
        Rhythm, Exam Registrations API: search.
        """
        if ids is None and not email and not exam_ids:
            raise ValueError("a search without criteria would return everything")
        criteria: dict[str, Any] = {"email_address": email} if email else {}
        if exam_ids:
            criteria["exam_id"] = list(exam_ids)
        url = f"{self._url}/search"
        if ids is None:
            return self._all_pages("a search", "POST", url, encode(criteria))
        known = [id for id in dict.fromkeys(ids) if REGISTRATION_ID.fullmatch(id)]
        found: list[Registration] = []
        for start in range(0, len(known), BATCH_LIMIT):
            body = encode({"ids": known[start : start + BATCH_LIMIT], **criteria})
            found += self._all_pages("a search", "POST", url, body)
        return found

    def page_of_exam(self, exam_id: str) -> list[Registration]:
        """The first page of an exam's registrations; empty when there are none.

        ---
        Rhythm, Exam Registrations API: search.
        """
        return self._all_pages("a search", "POST", f"{self._url}/search", encode({"exam_id": [exam_id]}), pages=1)

    def student_exam(self, student_id: str, exam_id: str) -> list[Registration]:
        """A person's registrations for an exam, each once, all pages; empty when there are none.

        ---
        Rhythm, Exam Registrations API: Returns a list of records with the specified student_exam_id.
        """
        if not all(0 < len(part) <= _LONGEST_KEY and part.strip(".") for part in (student_id, exam_id)):
            return []
        url = f"{self._url}/studentExam/{quote(student_id, safe='')}/{quote(exam_id, safe='')}"
        return self._all_pages("a look-up by student and exam", "GET", url)

    def patch(self, id: str, operations: Sequence[PatchOperation]) -> Registration:
        """The registration after `operations`, all of them or none.

        Raises RhythmRejected (invalid, or a `test` failed), MissingReference, RegistrationGone.

        ---
        Rhythm, Exam Registrations API: Partially updates a exam registration with the specified ID.
        """
        body = encode(self._directives(operations))
        content = self._call("a patch", "PATCH", f"{self._url}/{quote(id, safe='')}", body, write=True)
        return self._registration("a patch", id, content, write=True)

    def batch(self, patches: Mapping[str, Sequence[PatchOperation]]) -> dict[str, ItemResult]:
        """Each registration's result, at most 100. Rhythm applies them in parallel, each all or not at all.

        Raises RhythmRejected when a batch is refused whole, whatever its 4xx; then none of it was applied. A result's
        error is what a single patch would have raised; a RhythmRejected without a `status` gave no reason: sent alone
        it does.

        ---
        Rhythm, Exam Registrations API: Execute Batch Operations.
        """
        if not 0 < len(patches) <= BATCH_LIMIT:
            raise ValueError(f"a batch holds 1 to {BATCH_LIMIT} registrations, not {len(patches)}")
        operations = [
            {"id": id, "operation": "patch", "patch_directives": self._directives(patch), **self._extra}
            for id, patch in patches.items()
        ]
        body = encode({"operations": operations})
        try:
            content = self._call("a batch", "POST", f"{self._url}/batch", body, write=True)
        except (RegistrationGone, MissingReference) as error:
            raise RhythmRejected(error.detail, error.status) from error
        return read_results(_parse("a batch", _BATCH, content, write=True), list(patches), self._now())

    def _directives(self, operations: Sequence[PatchOperation]) -> list[dict[str, Any]]:
        return [operation.directive(self._as_text) for operation in operations]

    def _all_pages(
        self, call: str, method: str, url: str, body: bytes | None = None, pages: float = math.inf
    ) -> list[Registration]:
        """All pages, each registration once, the last seen of it. 404 to the first: "Unable to locate records"."""
        found: dict[str, Registration] = {}
        cursors = [""]
        while True:
            query = f"?exclusiveStartKey={quote(cursors[-1], safe='')}" if cursors[-1] else ""
            try:
                page = _parse(call, _PAGE, self._call(call, method, url + query, body))
            except RegistrationGone:
                if query:
                    raise
                return []
            items, key = (page, None) if isinstance(page, list) else (page.items or [], page.last_evaluated_key)
            found.update({registration.id: registration for registration in items})
            if not key or len(cursors) >= pages:
                return list(found.values())
            cursors.append(key if isinstance(key, str) else encode(key).decode())
            if cursors[-1] in cursors[:-1]:
                raise RhythmUnavailable(f"Rhythm's pages of {call} go round in circles: the same cursor came twice")

    def _registration(self, call: str, id: str, content: bytes, write: bool) -> Registration:
        registration = _parse(call, _REGISTRATION, content, write)
        if registration.id != id:
            raise RhythmUnavailable(f"Rhythm answered {call} with another registration", maybe_applied=write)
        return registration

    def _call(self, call: str, method: str, url: str, body: bytes | None = None, write: bool = False) -> bytes:
        """The body of a 2xx answer. A 401 is tried once more where there is a fresh token."""
        for last in (False, True):
            authorization = self._source.authorization()
            self._take_token()
            answer = self._send(call, method, url, {"Authorization": authorization}, body, write)
            if last or answer.status != 401 or not self._source.refused(authorization):
                break
        return self._accepted(call, answer, write)

    def _post_form(self, url: str, form: bytes) -> bytes:
        """The token endpoint's answer. It is not Rhythm, so it takes no token at the gate."""
        call, headers = "the token request", {"Content-Type": "application/x-www-form-urlencoded"}
        return self._accepted(call, self._send(call, "POST", url, headers, form, write=False), write=False)

    def _accepted(self, call: str, answer: _Answer, write: bool) -> bytes:
        if 200 <= answer.status < 300:
            return answer.content
        raise refusal(call, answer.status, answer.headers, write=write, now=self._now())

    def _send(
        self, call: str, method: str, url: str, headers: dict[str, str], body: bytes | None, write: bool
    ) -> _Answer:
        """One request, one answer, one deadline. Built by hand: `Session.request` costs as much again."""
        request = requests.PreparedRequest()
        request.method, request.url, request.body = method, url, body
        request.headers = CaseInsensitiveDict(_HEADERS | headers)
        if body is not None:
            request.headers.setdefault("Content-Type", "application/json")
            request.headers["Content-Length"] = str(len(body))
        timeout: Any = urllib3.Timeout(total=self._seconds)
        began = time.monotonic()
        try:
            response = self._session.get_adapter(url).send(request, stream=True, timeout=timeout)
            answer = _read(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            late = time.monotonic() - began >= self._seconds
            failure = _lost(call, error, self._seconds if late else None, write)
        else:
            if len(answer.content) <= LARGEST_ANSWER:
                return answer
            failure = RhythmUnavailable(f"Rhythm's answer to {call} is too long", maybe_applied=write)
        raise failure  # out here, so that no cause with a URL in it goes along


def _read(response: requests.Response) -> _Answer:
    """The answer, its body at most one byte longer than allowed. The body of a refusal says nothing that counts."""
    content = b""
    try:
        content = response.raw.read(LARGEST_ANSWER + 1, decode_content=True)
    except urllib3.exceptions.HTTPError:
        if response.status_code < 300:
            raise
    finally:
        response.close()  # the connection lives on when all was read
    return _Answer(response.status_code, response.headers, content)


def _lost(call: str, error: Exception, seconds: float | None, write: bool) -> RhythmUnavailable:
    """The failure of a request without a whole answer; `seconds` when the deadline ended it."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(reason, urllib3.exceptions.NewConnectionError):
        cause = reason.__cause__
        told = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None) or type(cause).__name__
        return RhythmUnavailable(f"no connection for {call}: {told}")
    if isinstance(error, ValueError):  # InvalidURL and its like
        return RhythmUnavailable(f"{call} cannot be sent: is the url right?")
    told = f"no whole answer to {call} within {seconds:g} s" if seconds else f"the connection broke during {call}"
    return RhythmUnavailable(told, maybe_applied=write)


def _parse(call: str, form: TypeAdapter[_T], content: bytes, write: bool = False) -> _T:
    try:
        return form.validate_json(content)
    except ValidationError:
        pass
    raise RhythmUnavailable(f"Rhythm's answer to {call} cannot be read", maybe_applied=write)
