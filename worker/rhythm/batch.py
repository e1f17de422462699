"""Reads what a batch's reply says about each of its operations. Pure.

The document leaves the entries of `results` open, so nothing is taken for granted. An entry is matched by id, else by
its place. Where entries do not tell whether they were applied, the counts may. A reply that contradicts itself leaves
the result unknown: that costs one more read, while a wrong result would lose an exam result.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from schemas.rhythm import BatchReply, BatchResult, Registration
from worker.errors import ExamrelayError
from worker.rhythm.failures import Call, RhythmRejected, refusal

#: "failed" is left out: it is also the status of a registration.
_WORDS = {"success": True, "succeeded": True, "ok": True, "error": False, "failure": False}

#: The members of an entry that say why it failed.
_ERRORS = ("error", "errors", "error_message")


class ItemState(StrEnum):
    """What happened to one operation of a batch."""

    APPLIED = "applied"
    FAILED = "failed"
    #: The reply does not tell: read the registration.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One operation of a batch: its state, the registration as it is now if the reply carries it, and its error."""

    state: ItemState
    registration: Registration | None = None
    error: ExamrelayError | None = None


class _Reading(NamedTuple):
    """What was read from an entry; `applied` is None where it does not tell."""

    applied: bool | None = None
    status: int | None = None
    registration: Registration | None = None
    #: What the entry says of an error, as JSON.
    words: bytes = b""


def read_results(reply: BatchReply, ids: Sequence[str], now: datetime) -> dict[str, ItemResult]:
    """The result of each of `ids`, which are in the order they were sent in.

    ---
    Rhythm, Exam Registrations API: Execute Batch Operations ("parallel", `success_count`, `error_count`, `results`).
    """
    entries = _by_id(reply.results or [], ids)
    readings = {id: _read(entries[id], id) if id in entries else _Reading() for id in ids}
    readings = _checked(readings, reply.success_count, reply.error_count)
    return {id: _result(reading, now) for id, reading in readings.items()}


def _checked(readings: dict[str, _Reading], successes: int | None, errors: int | None) -> dict[str, _Reading]:
    """`readings` completed by the counts where entries are silent; all unknown where they contradict the counts."""
    applied = sum(reading.applied is True for reading in readings.values())
    failed = sum(reading.applied is False for reading in readings.values())
    silent = len(readings) - applied - failed
    if silent and (successes, errors) in ((applied + silent, failed), (applied, failed + silent)):
        rest = _Reading(applied=errors == failed)
        return {id: rest if reading.applied is None else reading for id, reading in readings.items()}
    agrees = (successes is None or applied <= successes <= applied + silent) and (
        errors is None or failed <= errors <= failed + silent
    )
    return readings if agrees else dict.fromkeys(readings, _Reading())


def _result(reading: _Reading, now: datetime) -> ItemResult:
    if reading.applied is None:
        return ItemResult(ItemState.UNKNOWN)
    if reading.applied:
        return ItemResult(ItemState.APPLIED, reading.registration)
    if reading.status is None:
        error: ExamrelayError = RhythmRejected(f"Rhythm refused {Call.BATCH_ITEM} and gave no status")
    else:
        error = refusal(Call.BATCH_ITEM, reading.status, {}, now, reading.words)
    return ItemResult(ItemState.FAILED, error=error)


def _by_id(results: Sequence[BatchResult], ids: Sequence[str]) -> dict[str, BatchResult]:
    """Each entry under its id; by place when none has one. An id that is there twice is left out."""
    named = [(result.id or getattr(_carried(result), "id", None), result) for result in results]
    times = Counter(id for id, _ in named)
    if times[None] == len(ids) == len(results):
        return dict(zip(ids, results, strict=True))
    return {id: result for id, result in named if id is not None and times[id] == 1}


def _carried(result: BatchResult) -> Registration | None:
    return result.object or result.result or result.payload or result.item


def _registration(result: BatchResult, id: str) -> Registration | None:
    """The registration that the entry carries or is; None when it is another's."""
    registration = _carried(result)
    if registration is None and result.id and result.exam_id:
        members = {name: getattr(result, name) for name in Registration.model_fields}
        registration = Registration.model_construct(**members)
    return registration if registration is not None and registration.id == id else None


def _read(result: BatchResult, id: str) -> _Reading:
    """One entry. All signs of success or failure in it must agree, else it tells nothing."""
    registration = _registration(result, id)
    status = _status(result)
    signs = {
        result.success,
        _WORDS.get((result.status or "").lower()),
        None if status is None else 200 <= status < 300,
        False if any(getattr(result, name) for name in _ERRORS) else None,
    } - {None}
    if len(signs) > 1:
        return _Reading()
    applied = signs.pop() if signs else (True if registration else None)
    words = {name: told for name in _ERRORS if (told := getattr(result, name))}
    return _Reading(
        applied, status, registration if applied else None, json.dumps(words, default=str).encode() if words else b""
    )


def _status(result: BatchResult) -> int | None:
    """The HTTP status that the operation would have had alone."""
    error = result.error if isinstance(result.error, Mapping) else {}
    within = (error.get(name) for name in ("status_code", "statusCode", "status", "code"))
    for value in (result.status_code, result.status_code_camel, result.code, result.status, *within):
        if isinstance(value, int | str) and str(value).isdecimal() and 100 <= int(value) <= 599:
            return int(value)
    return None
