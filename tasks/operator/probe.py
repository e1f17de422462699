"""A tenant's Rhythm tried out with operations that change nothing: url, credentials, exam map, guard.

The writes are patches whose only operation is a `test` that cannot hold: Rhythm must refuse them, and says by that
that we may write there, and that the guard which every real write begins with is honoured.
"""

from collections.abc import Callable, Iterator

from schemas.rhythm import Registration
from tasks.steps.reading import Reader, ReadingStopped
from worker.bootstrap import Services
from worker.errors import ExamrelayError
from worker.health import Finding
from worker.ledger.gate import GateClosed
from worker.rhythm.batch import ItemState
from worker.rhythm.client import REFUSED_PATCH, Rhythm
from worker.rhythm.failures import CredentialsRefused, RhythmRejected, RhythmThrottled, RhythmUnavailable
from worker.tenants import RhythmConnection


def probe(at: Services, tenant: str) -> Iterator[Finding]:
    """What is found of a tenant's Rhythm, one call after the other, through its gate. Never raises for Rhythm."""
    rules, gate = at.tenants[tenant], at.gate(tenant)
    reader = Reader(at.rhythm(rules, gate), gate)
    found: list[Registration] = []
    try:
        for exam in rules.exams:
            known = reader.of_exam(exam.exam_id)
            found += [one for one in known if not one.sys_locked]
            detail = f"has registrations, {len(known)} on the first page" if known else "nobody is registered for it"
            yield Finding(f"exam {exam.exam_id}", True if known else None, detail, tenant)
        if not found:
            advice = "no registration to try the rest on: if people are registered, url, tenant_id or exam_id is wrong"
            yield Finding("rhythm", None, advice, tenant)
            return
        sample = next((one for one in found if one.student_id), found[0])
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
    known = reader.truth(sample.id)
    detail = "a registration that a search lists cannot be read"
    if known is not None:
        detail = "read consistently" if known.sys_version is not None else "has no sys_version for the guard"
    return Finding("read by id", known is not None and known.sys_version is not None, detail, tenant)


def _by_student(reader: Reader, sample: Registration, tenant: str) -> Finding:
    if not sample.student_id or not sample.exam_id:
        return Finding("read by student", None, "no registration with a student_id to try it on", tenant)
    known = any(one.id == sample.id for one in reader.of_student(sample.student_id, sample.exam_id))
    detail = "finds the registration" if known else "does not find a registration that a search lists"
    return Finding("read by student", known, detail, tenant)


def _write(reader: Reader, connection: RhythmConnection, write: Callable[[], str | None]) -> tuple[bool | None, str]:
    """Whether a write that must be refused was, and what that means. As with real ones only a 429 closes the gate."""
    try:
        taken = write()
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
    if taken is not None:
        return True, taken
    told = "Rhythm applies a patch whose `test` fails: sys_version guards nothing here"
    return connection.guard == "none", told


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
