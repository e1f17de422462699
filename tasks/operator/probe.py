"""Tries out a tenant's Rhythm with operations that change nothing: url, credentials, exam map, guard.

The writes are patches whose only operation is a `test` that cannot hold. When Rhythm refuses them as it must, the
credentials may write there, and the guard with which every real write begins is honoured.
"""

from collections.abc import Callable, Iterator

from schemas.rhythm import Registration
from tasks.steps.reading import Reader, ReadingStopped
from worker.bootstrap import Services
from worker.errors import ExamrelayError
from worker.health import Finding
from worker.ledger.gate import GateClosed
from worker.remote import RhythmConnection
from worker.rhythm.batch import ItemState
from worker.rhythm.client import REFUSED_PATCH, Rhythm
from worker.rhythm.failures import CredentialsRefused, RhythmRejected, RhythmThrottled, RhythmUnavailable


def probe(at: Services, tenant: str) -> Iterator[Finding]:
    """Check a tenant's Rhythm, one call after the other, through its gate. A failure of Rhythm is a finding."""
    rules, gate = at.tenants[tenant], at.gate(tenant)
    reader = Reader(at.rhythm(rules, gate), gate)
    found: list[Registration] = []
    try:
        for exam in rules.exams:
            page, _ = reader.of_exam(exam.exam_id)
            found += [registration for registration in page if not registration.sys_locked]
            detail = f"has registrations, {len(page)} on the first page" if page else "nobody is registered for it"
            yield Finding(f"exam {exam.exam_id}", True if page else None, detail, tenant)
        if not found:
            advice = "no registration to try the rest on: if people are registered, url, tenant_id or exam_id is wrong"
            yield Finding("rhythm", None, advice, tenant)
            return
        sample = next((registration for registration in found if registration.student_id), found[0])
        yield _by_id(reader, sample, tenant)
        yield _by_student(reader, sample, tenant)
    except ReadingStopped as stopped:
        holds = None if isinstance(stopped.error, GateClosed) else False
        yield Finding("rhythm", holds, stopped.error.detail, tenant)
        return
    except ExamrelayError as error:
        yield Finding("rhythm", False, error.detail, tenant)
        return
    yield Finding("patch", *_write(reader, rules.rhythm, lambda: _patch(reader.rhythm, sample.id)), tenant)
    yield Finding("batch", *_write(reader, rules.rhythm, lambda: _batch(reader.rhythm, sample.id)), tenant)


def _by_id(reader: Reader, sample: Registration, tenant: str) -> Finding:
    registration = reader.truth(sample.id)
    if registration is None:
        return Finding("read by id", False, "a registration that a search lists cannot be read", tenant)
    guarded = registration.sys_version is not None
    detail = "read consistently" if guarded else "has no sys_version for the guard"
    return Finding("read by id", guarded, detail, tenant)


def _by_student(reader: Reader, sample: Registration, tenant: str) -> Finding:
    if not sample.student_id or not sample.exam_id:
        return Finding("read by student", None, "no registration with a student_id to try it on", tenant)
    listed = any(other.id == sample.id for other in reader.of_student(sample.student_id, sample.exam_id))
    detail = "finds the registration" if listed else "does not find a registration that a search lists"
    return Finding("read by student", listed, detail, tenant)


def _write(reader: Reader, connection: RhythmConnection, write: Callable[[], str | None]) -> tuple[bool | None, str]:
    """Whether a write that must be refused was refused, and what that means. Only a 429 closes the gate."""
    try:
        unclear = write()
    except RhythmRejected:
        return True, "may write; the guard holds"
    except CredentialsRefused as error:
        return False, f"{error.detail}: these credentials may read, not write"
    except RhythmThrottled as error:
        reader.gate.close(error.reason, error.retry_after)
        return None, error.detail
    except GateClosed as closed:
        return None, closed.detail
    except RhythmUnavailable as error:
        return False, error.detail
    except ExamrelayError as error:
        return False, f"{error.detail}: a refused guard must be answered with 400, 412 or 422"
    if unclear is not None:
        return True, unclear
    return connection.guard == "none", "Rhythm applies a patch whose `test` fails: sys_version guards nothing here"


def _patch(rhythm: Rhythm, id: str) -> str | None:
    rhythm.patch(id, REFUSED_PATCH)
    return None


def _batch(rhythm: Rhythm, id: str) -> str | None:
    result = rhythm.batch({id: REFUSED_PATCH})[id]
    if result.error is not None:
        raise result.error
    if result.state is ItemState.UNKNOWN:
        return "may write; the answer does not tell what became of each, so it is read back: one call more a batch"
    return None
