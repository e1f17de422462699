"""One search for all open registrations of an exam, where many events would each be looked up on their own.

It shows who is there and open, and proves nothing about anybody else. So an event takes its registration from here only
where its own look-up would lead to the same one; every other event is looked up on its own, also to learn why it must
be held. What a search found serves all batches of its task, each person once; they begin within 10 s (`claiming.work`).
"""

import math
import time
from typing import Final

from schemas.addresses import folded
from schemas.rhythm import OPEN, Registration
from tasks.steps.batch import ExamSearch, Run
from tasks.steps.job import Job
from tasks.steps.reading import OutOfTime, ReadingStopped
from worker.errors import ExamrelayError
from worker.rules import matching

#: Fewer look-ups than this for one exam are made on their own.
_MANY: Final = 10
#: For so long a process remembers how many look-ups an exam's search must replace to be worth it.
_REMEMBERED_SECONDS: Final = 600.0


def can_be_searched(job: Job) -> bool:
    """Whether an event is looked up, no earlier try of it is in doubt, and its delivery has written nothing.

    What a delivery has written, or may have, comes first in a choice, and need not be open.
    """
    known = job.work.delivery_record
    before = job.in_doubt or job.work.failed or job.work.answers or known.applied or known.siblings
    return not (job.named or before)


def search_exam(run: Run, job: Job, wanted: int) -> list[Registration]:
    """The person's open registrations, if they decide; else none. `wanted`: how many of the batch ask for this exam."""
    exam_id = job.exam.exam_id
    search = run.searches.get(exam_id)
    if search is None:
        worth, until = run.search_costs.get((run.tenant, exam_id), (0, 0))
        if wanted < max(_MANY, worth if time.monotonic() < until else 0):
            return []
        search = run.searches[exam_id] = _searched(run, exam_id, wanted)
    theirs = [run.rhythm.newest(one) for one in _of(run, job, search)]
    if not matching.open_ones_decide(job.outcome, job.exam, theirs):
        return []
    search.saved += 1
    if search.saved == search.calls:
        _remember(run, exam_id, search.calls)
    return theirs


def _searched(run: Run, exam_id: str, most: int) -> ExamSearch:
    """All pages, or nothing: a person's second registration may be on the next page.

    It is not worth it until it has saved the calls that it took. Raises ReadingStopped.
    """
    search, found, cursor, began = ExamSearch(), dict[str, Registration](), "", time.monotonic()
    _remember(run, exam_id, math.inf)
    run.rhythm.allow(run.rhythm.spans.exam)
    try:
        while not search.calls or (cursor and search.calls < most):
            page, cursor = _page(run, exam_id, cursor)
            found |= {one.id: one for one in page}
            search.calls += 1
    except (OutOfTime, ExamrelayError):
        cursor = "not all"
    else:
        if cursor:
            _remember(run, exam_id, most + 1)
    search.seconds = time.monotonic() - began
    run.rhythm.allow(run.rhythm.spans.look_up)
    for one in () if cursor else found.values():
        search.students.setdefault(one.student_id or "", []).append(one)
        search.addresses.setdefault(folded(one.email_address or ""), []).append(one)
    return search


def _page(run: Run, exam_id: str, cursor: str) -> tuple[list[Registration], str]:
    try:
        return run.rhythm.of_exam(exam_id, OPEN, cursor)
    except ReadingStopped:
        run.rhythm.wait()  # the pages before this one are worth a short pause
        return run.rhythm.of_exam(exam_id, OPEN, cursor)


def _remember(run: Run, exam_id: str, worth: float) -> None:
    run.search_costs[run.tenant, exam_id] = worth, time.monotonic() + _REMEMBERED_SECONDS


def _of(run: Run, job: Job, search: ExamSearch) -> list[Registration]:
    """A person's, once: their next event, or the next try of this one, may find something newer.

    By e-mail only if all are spelled as it was sent. Rhythm may compare addresses letter by letter: then the look-up
    ends with the registrations of the first spelling that there is, whatever their status, and sees no others.
    """
    candidate = job.outcome.candidate
    if student := matching.student_of(candidate, run.rules.sources[job.work.source]):
        return search.students.pop(student, []) if student.strip(".") else []
    theirs = search.addresses.pop(candidate.email, []) if candidate.email else []
    sent = (candidate.email_sent or "").strip()
    return theirs if all(one.email_address == sent for one in theirs) else []
