"""Which registration each event of a batch is about: fetches the candidates; `worker/rules/matching.py` chooses."""

from collections import Counter
from collections.abc import Iterable, Mapping

from schemas.event import Reason
from schemas.rhythm import Registration
from tasks.steps.batch import Run, as_far_as_it_goes, each
from tasks.steps.exam_search import can_be_searched, search_exam
from tasks.steps.job import Job, undecided
from worker.errors import PermanentError
from worker.ledger.written import Remembered, remembered
from worker.rules import matching


def resolve(run: Run, jobs: list[Job]) -> None:
    """Each event's registration: by the id it names, else by student and exam, else by e-mail and exam."""
    spans, ids = run.rhythm.spans, {job.work.id: _named(run, job) for job in jobs}
    apart = [id for job in jobs if job.work.failed and not job.work.intent for id in ids[job.work.id]]
    run.rhythm.allow(spans.look_up)
    found = run.rhythm.by_id((id for named in ids.values() for id in named), apart)

    def take_named(job: Job) -> None:
        job.candidates = [registration for id in ids[job.work.id] if (registration := found.get(id))]
        job.named = bool(job.candidates)

    each(jobs, take_named)
    named_first = sorted(undecided(jobs), key=lambda job: not job.named)
    wanted = Counter(job.exam.exam_id for job in named_first if can_be_searched(job))
    as_far_as_it_goes(run, named_first, lambda job: _find(run, job, wanted), spans.look_up)
    last_left = _last_left(run, jobs)
    as_far_as_it_goes(run, undecided(jobs), lambda job: _choose(run, job, last_left), spans.repeat)


def _named(run: Run, job: Job) -> list[str]:
    answer = job.work.answers.get("registration")
    return [answer] if answer else matching.named_ids(job.outcome, run.rules.sources[job.work.source])


def _find(run: Run, job: Job, wanted: Counter[str]) -> None:
    if can_be_searched(job):
        job.candidates = search_exam(run, job, wanted[job.exam.exam_id])
        job.searched = bool(job.candidates)
    if not job.named and not job.searched:
        _look_up(run, job)


def _look_up(run: Run, job: Job) -> None:
    rules, candidate, exam_id = run.rules.sources[job.work.source], job.outcome.candidate, job.exam.exam_id
    if answer := job.work.answers.get("registration"):
        _look_up_answer(run, job, answer)
        return
    if nobody := matching.why_nobody(job.outcome, rules):
        raise PermanentError(Reason.NOBODY_NAMED, nobody)
    run.rhythm.in_time()
    student = matching.student_of(candidate, rules)
    if student:
        job.candidates = run.rhythm.of_student(student, exam_id)
    if not job.candidates and candidate.email_sent:
        job.candidates = run.rhythm.of_email(candidate.email_sent, exam_id)


def _look_up_answer(run: Run, job: Job, id: str) -> None:
    """It existed when a person named it, so an old state proves nothing. If it is gone, a person decides again."""
    registration = run.rhythm.truth(id)
    if registration is None:
        raise PermanentError(Reason.REGISTRATION_MISMATCH, f"Rhythm has no registration {id}, the answer given")
    job.candidates, job.named = [registration], True


def _last_left(run: Run, jobs: Iterable[Job]) -> dict[str, Remembered]:
    candidates = (candidate.id for job in jobs for candidate in job.candidates)
    return remembered(run.ledger.client, run.ledger.sealer, run.tenant, candidates)


def _choose(run: Run, job: Job, last_left: Mapping[str, Remembered]) -> None:
    rules = run.rules.sources[job.work.source]
    candidates = [run.rhythm.not_before(one, last_left[one.id].sys_version) for one in job.candidates]
    if job.searched and candidates != job.candidates:  # we have written there since the exam was searched
        _look_up(run, job)
        job.searched = False
        _choose(run, job, _last_left(run, [job]))
        return
    if job.named and "registration" in job.work.answers:
        job.registration = matching.answered(job.exam, candidates[0])
    elif job.named:
        job.registration = matching.confirm(job.outcome, job.exam, rules, candidates)
    else:
        ours = {one.id for one in candidates if _is_ours(job, one, last_left[one.id])}
        chosen = matching.choose(job.outcome, job.exam, candidates, ours)
        job.registration = matching.confirm(job.outcome, job.exam, rules, [chosen])
    job.remembered = last_left[job.registration.id]


def _is_ours(job: Job, registration: Registration, last_left: Remembered) -> bool:
    """Whether this delivery wrote it last, or may have."""
    left = job.left_by_sibling(registration) is not None
    return left or last_left.delivery == job.work.delivery or job.may_have_written(registration)
