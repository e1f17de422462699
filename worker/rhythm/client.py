"""One tenant's Rhythm: its calls, and what their answers mean. How they are sent is in worker/rhythm/transport.py.

Every call takes the tenant's turn at the gate right before it is sent, ends at one deadline and follows no redirect.
Nothing is retried here, with one exception: a new try after a 401 with a fresh token. What a failure means is decided
in worker/rhythm/failures.py; each error raised here is one of its classes.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import requests
from pydantic import TypeAdapter, ValidationError

from schemas.rhythm import BATCH_LIMIT, REGISTRATION_ID, BatchReply, Page, PatchOperation, Registration, encode, page_of
from worker.remote import ApiKey, RhythmConnection
from worker.rhythm.auth import Clock, KeySource, OAuthSource, TokenStore
from worker.rhythm.batch import ItemResult, read_results
from worker.rhythm.failures import Call, MissingReference, RegistrationGone, RhythmRejected, RhythmUnavailable, refusal
from worker.rhythm.transport import LARGEST_ANSWER, Answer, Transport

#: The id of a registration that cannot exist: to read it, or to patch it, depends on no event's data.
_NOBODY = "examrelay-probe"
#: No registration has such a version: the `test` always fails.
REFUSED_PATCH = (PatchOperation(op="test", path="/sys_version", value=-1),)
#: Longest part of a path: DynamoDB, under Rhythm, has no longer key.
_LONGEST_KEY = 1024
_NOW: Clock = partial(datetime.now, UTC)
_T = TypeVar("_T")
_REGISTRATION = TypeAdapter(Registration)
_PAGE: TypeAdapter[Page | list[Registration]] = TypeAdapter(Page | list[Registration])
_BATCH = TypeAdapter(BatchReply)


class Rhythm:
    """The calls of one tenant. Each method may raise what `take_turn` raises, and any transient error of failures.py.

    `take_turn` is called right before each HTTP call to Rhythm is sent; `ended` after it, with its kind, its status
    (None: no answer) and the seconds it took. `tokens` shares OAuth tokens between processes.
    """

    def __init__(
        self,
        connection: RhythmConnection,
        session: requests.Session,
        take_turn: Callable[[], None],
        tokens: TokenStore,
        now: Clock = _NOW,
        ended: Callable[[str, int | None, float], None] = lambda *_: None,
    ) -> None:
        self._url = f"{connection.url.rstrip('/')}/examRegistrations/{quote(connection.tenant_id, safe='')}"
        self._transport = Transport(session, connection)
        self._take_turn, self._ended = take_turn, ended
        self._as_text = connection.patch_values == "string"
        self._extra: dict[str, Any] = {"object": {}} if connection.batch_object else {}
        self._now = now
        credentials = connection.credentials
        self._source = (
            KeySource(credentials)
            if isinstance(credentials, ApiKey)
            else OAuthSource(credentials, tokens, self._post_form, now)
        )

    def get(self, id: str, consistent: bool = False) -> Registration | None:
        """The registration, or None: there is none, or `id` cannot be one's. `consistent`: never an older state.

        ---
        Rhythm, Exam Registrations API: Returns a exam registration from the system by its ID (`consistentRead`).
        """
        if not REGISTRATION_ID.fullmatch(id):
            return None
        url = f"{self._url}/{quote(id, safe='')}{'?consistentRead=true' if consistent else ''}"
        try:
            return self._registration(Call.READ, id, self._call(Call.READ, url))
        except RegistrationGone:
            return None

    def probe(self, writing: bool = False) -> None:
        """The cheapest call there is. Returns when Rhythm answers it and takes our credentials; else a transient error.

        `writing`: by a patch for a registration that does not exist and whose `test` cannot hold, to learn whether we
        may write.
        """
        with suppress(RegistrationGone, RhythmRejected, MissingReference):  # answers, too
            if writing:
                self.patch(_NOBODY, REFUSED_PATCH)
            else:
                self.get(_NOBODY)

    def search(
        self, ids: Sequence[str] | None = None, email: str | None = None, exam_ids: Sequence[str] | None = None
    ) -> list[Registration]:
        """The registrations that fit all criteria, each once, all pages. May be an older state.

        Ids that cannot be a registration's are left out. Raises ValueError without criteria.

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
            return self._pages(Call.SEARCH, url, encode(criteria))
        valid = [id for id in dict.fromkeys(ids) if REGISTRATION_ID.fullmatch(id)]
        parts = (valid[start : start + BATCH_LIMIT] for start in range(0, len(valid), BATCH_LIMIT))
        bodies = [encode({"ids": part, **criteria}) for part in parts]
        return [registration for body in bodies for registration in self._pages(Call.SEARCH, url, body)]

    def page_of_exam(self, exam_id: str, statuses: Collection[str], cursor: str) -> tuple[list[Registration], str]:
        """A page of an exam's registrations (`statuses`: only of these), and the next one's cursor: "" after the last.

        ---
        Rhythm, Exam Registrations API: search.
        """
        criteria = {"exam_id": [exam_id]} | ({"status": list(statuses)} if statuses else {})
        return self._page(Call.SEARCH, f"{self._url}/search", encode(criteria), cursor)

    def student_exam(self, student_id: str, exam_id: str) -> list[Registration]:
        """A person's registrations for an exam, each once, all pages; empty when there are none.

        ---
        Rhythm, Exam Registrations API: Returns a list of records with the specified student_exam_id.
        """
        if not all(0 < len(part) <= _LONGEST_KEY and part.strip(".") for part in (student_id, exam_id)):
            return []
        url = f"{self._url}/studentExam/{quote(student_id, safe='')}/{quote(exam_id, safe='')}"
        return self._pages(Call.LOOK_UP, url)

    def patch(self, id: str, operations: Sequence[PatchOperation]) -> Registration:
        """The registration after `operations`, all of them or none.

        Raises RhythmRejected (invalid, or a `test` failed), MissingReference, RegistrationGone.

        ---
        Rhythm, Exam Registrations API: Partially updates a exam registration with the specified ID.
        """
        body = encode(self._directives(operations))
        return self._registration(Call.PATCH, id, self._call(Call.PATCH, f"{self._url}/{quote(id, safe='')}", body))

    def batch(self, patches: Mapping[str, Sequence[PatchOperation]]) -> dict[str, ItemResult]:
        """Each registration's result, at most 100. Rhythm applies them in parallel, each all or not at all.

        Raises RhythmRejected when Rhythm refuses the whole batch; then none of it was applied. A result's error is what
        a single patch would have raised. A RhythmRejected without a `status` has no known cause: a single patch tells.

        ---
        Rhythm, Exam Registrations API: Execute Batch Operations.
        """
        if not 0 < len(patches) <= BATCH_LIMIT:
            raise ValueError(f"a batch holds 1 to {BATCH_LIMIT} registrations, not {len(patches)}")
        operations = [
            {"id": id, "operation": "patch", "patch_directives": self._directives(patch), **self._extra}
            for id, patch in patches.items()
        ]
        content = self._call(Call.BATCH, f"{self._url}/batch", encode({"operations": operations}))
        return read_results(_parse(Call.BATCH, _BATCH, content), list(patches), self._now())

    def _directives(self, operations: Sequence[PatchOperation]) -> list[dict[str, Any]]:
        return [operation.directive(self._as_text) for operation in operations]

    def _pages(self, call: Call, url: str, body: bytes | None = None) -> list[Registration]:
        """All pages; each registration once, as it was read last."""
        registrations: dict[str, Registration] = {}
        cursors = [""]
        while True:
            items, cursor = self._page(call, url, body, cursors[-1])
            registrations.update({registration.id: registration for registration in items})
            if not cursor:
                return list(registrations.values())
            if cursor in cursors:
                raise RhythmUnavailable(f"Rhythm gave the same cursor twice for {call}: its pages have no end")
            cursors.append(cursor)

    def _page(self, call: Call, url: str, body: bytes | None, cursor: str) -> tuple[list[Registration], str]:
        """A page, and the next one's cursor. 404 to the first page: there are none."""
        query = f"?exclusiveStartKey={quote(cursor, safe='')}" if cursor else ""
        try:
            return page_of(_parse(call, _PAGE, self._call(call, url + query, body)))
        except RegistrationGone:
            if cursor:
                raise
            return [], ""

    def _registration(self, call: Call, id: str, content: bytes) -> Registration:
        registration = _parse(call, _REGISTRATION, content)
        if registration.id != id:
            raise RhythmUnavailable(f"Rhythm answered {call} with another registration", maybe_applied=call.writes)
        return registration

    def _call(self, call: Call, url: str, body: bytes | None = None) -> bytes:
        """The body of a 2xx answer. A 401 is tried once more where there is a fresh token."""
        for last in (False, True):
            authorization = self._source.authorization()
            self._take_turn()
            answer = self._send(call, url, {"Authorization": authorization}, body)
            if last or answer.status != 401 or not self._source.renewed(authorization):
                break
        return self._accepted(call, answer)

    def _post_form(self, url: str, form: bytes) -> bytes:
        """The token endpoint's answer. It is not Rhythm, so it takes no turn at the gate."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._accepted(Call.TOKEN, self._send(Call.TOKEN, url, headers, form))

    def _accepted(self, call: Call, answer: Answer) -> bytes:
        if 200 <= answer.status < 300:
            return answer.content
        raise refusal(call, answer.status, answer.headers, self._now(), answer.content)

    def _send(self, call: Call, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
        began, answer = time.monotonic(), None
        try:
            answer = self._transport.send(call, url, headers, body)
        finally:
            self._ended(call.name.lower(), answer and answer.status, time.monotonic() - began)
        if len(answer.content) > LARGEST_ANSWER:
            raise RhythmUnavailable(f"Rhythm's answer to {call} is too long", maybe_applied=call.writes)
        return answer


def _parse(call: Call, form: TypeAdapter[_T], content: bytes) -> _T:
    with suppress(ValidationError):
        return form.validate_json(content)
    raise RhythmUnavailable(f"Rhythm's answer to {call} cannot be read", maybe_applied=call.writes)
