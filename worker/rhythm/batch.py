"""Reads what a batch's reply says about each of its operations. Pure.

The document leaves the entries of `results` open, so nothing is taken for granted: an entry is matched by id, else by
its place; what an entry does not say the counts may; and a reply that contradicts itself says nothing. To say nothing
costs one read; to be wrong costs a result.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from schemas.rhythm import BatchReply, BatchResult, Registration
from worker.errors import ExamrelayError
from worker.rhythm.failures import RhythmRejected, refusal

_WORDS = {"success": True, "succeeded": True, "ok": True, "error": False, "failure": False}  # "failed" is a status


class ItemState(StrEnum):
    """What became of one operation of a batch."""

    APPLIED = "applied"
    FAILED = "failed"
    #: The reply does not say: read the registration.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One operation of a batch: its state, the registration as it is now if the reply carries it, and its error."""

    state: ItemState
    registration: Registration | None = None
    error: ExamrelayError | None = None


class _Told(NamedTuple):
    applied: bool | None = None
    status: int | None = None
    registration: Registration | None = None


def read_results(reply: BatchReply, ids: Sequence[str], now: datetime) -> dict[str, ItemResult]:
    """What `reply` says about each of `ids`, which are in the order they were sent in.

    ---
    Rhythm, Exam Registrations API: Execute Batch Operations ("parallel", `success_count`, `error_count`, `results`).
    """
    entries = _by_id(reply.results or [], ids)
    told = {id: _read(entries[id], id) if id in entries else _Told() for id in ids}
    return {id: _result(word, now) for id, word in _completed(told, reply.success_count, reply.error_count).items()}


def _completed(told: dict[str, _Told], successes: int | None, errors: int | None) -> dict[str, _Told]:
    """`told`, where entries said nothing by the counts, where they agree with what entries did say; else nothing."""
    applied = sum(word.applied is True for word in told.values())
    failed = sum(word.applied is False for word in told.values())
    silent = len(told) - applied - failed
    if silent and (successes, errors) in ((applied + silent, failed), (applied, failed + silent)):
        rest = _Told(applied=errors == failed)
        return {id: rest if word.applied is None else word for id, word in told.items()}
    agrees = (successes is None or applied <= successes <= applied + silent) and (
        errors is None or failed <= errors <= failed + silent
    )
    return told if agrees else dict.fromkeys(told, _Told())


def _result(told: _Told, now: datetime) -> ItemResult:
    if told.applied is None:
        return ItemResult(ItemState.UNKNOWN)
    if told.applied:
        return ItemResult(ItemState.APPLIED, told.registration)
    call = "one of a batch"
    if told.status is None:
        return ItemResult(ItemState.FAILED, error=RhythmRejected(f"Rhythm refused {call} and gave no status"))
    if told.status in (401, 403):  # not the credentials: they got the batch through
        return ItemResult(
            ItemState.FAILED, error=RhythmRejected(f"Rhythm answered {told.status} to {call}", told.status)
        )
    return ItemResult(ItemState.FAILED, error=refusal(call, told.status, {}, write=True, now=now))


def _by_id(results: Sequence[BatchResult], ids: Sequence[str]) -> dict[str, BatchResult]:
    """Each entry under its id; by place when none has one. An id that is there twice is left out."""
    named = [(_id(result), result) for result in results]
    times = Counter(id for id, _ in named)
    if times[None] == len(ids) == len(results):
        return dict(zip(ids, results, strict=True))
    return {id: result for id, result in named if id is not None and times[id] == 1}


def _id(result: BatchResult) -> str | None:
    inner = _inner(result)
    return result.id or (inner.id if inner else None)


def _inner(result: BatchResult) -> Registration | None:
    return result.object or result.result or result.payload or result.item


def _registration(result: BatchResult, id: str) -> Registration | None:
    """The registration that the entry carries or is; None when it is another's."""
    found = _inner(result)
    if found is None and result.id and result.exam_id:
        found = Registration.model_construct(**{name: getattr(result, name) for name in Registration.model_fields})
    return found if found is not None and found.id == id else None


def _read(result: BatchResult, id: str) -> _Told:
    """What one entry says: every sign in it must point the same way."""
    registration = _registration(result, id)
    status = _status(result)
    signs = {
        result.success,
        _WORDS.get((result.status or "").lower()),
        None if status is None else 200 <= status < 300,
        False if result.error or result.errors or result.error_message else None,
    } - {None}
    if len(signs) > 1:
        return _Told()
    applied = signs.pop() if signs else (True if registration else None)
    return _Told(applied, status, registration if applied else None)


def _status(result: BatchResult) -> int | None:
    """The HTTP status that the operation would have had alone."""
    error = result.error if isinstance(result.error, Mapping) else {}
    within = (error.get(name) for name in ("status_code", "statusCode", "status", "code"))
    for value in (result.status_code, result.status_code_camel, result.code, result.status, *within):
        if isinstance(value, int | str) and str(value).isdecimal() and 100 <= int(value) <= 599:
            return int(value)
    return None
