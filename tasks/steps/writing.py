"""How a batch is written to Rhythm: one patch or one batch call, and the search for the item that Rhythm refuses.

A registration without a result was not sent, or Rhythm said nothing about it; its event is planned again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from schemas.rhythm import PatchOperation
from tasks.steps.batch import Run
from tasks.steps.job import Job
from tasks.steps.reading import ReadingStopped
from worker.errors import ExamrelayError
from worker.ledger.gate import GateClosed
from worker.rhythm.batch import ItemResult, ItemState
from worker.rhythm.client import Rhythm
from worker.rhythm.failures import CredentialsRefused, RhythmRejected, RhythmThrottled
from worker.rules import changes

#: Not processed, perhaps because of one item alone.
_REFUSED: Final = (RhythmRejected, CredentialsRefused)
Patches = Mapping[str, Sequence[PatchOperation]]
Results = dict[str, ItemResult]


def write(run: Run, jobs: list[Job]) -> Results:
    """Call Rhythm: one patch, or one batch. Nothing is changed there before this step.

    Events that failed before go after the others, in batches that each failure halves, until the failing one is alone.
    """
    results: Results = {}
    for group in _groups(jobs):
        if not results or run.rhythm.has_time():
            results |= _write(run, group)
    return results


def _groups(jobs: list[Job]) -> Iterator[list[Job]]:
    sound = [job for job in jobs if not job.work.failed]
    if sound:
        yield sound
    for attempts in sorted({job.work.attempts for job in jobs if job.work.failed}):
        failed = [job for job in jobs if job.work.failed and job.work.attempts == attempts]
        size = max(1, -(-len(failed) // 2 ** min(attempts, 7)))
        yield from (failed[start : start + size] for start in range(0, len(failed), size))


def _write(run: Run, jobs: list[Job]) -> Results:
    guard, rhythm = run.rules.rhythm.guard, run.rhythm.rhythm
    patches = {job.target.id: changes.patch(job.changed, job.target, guard) for job in jobs}
    results = send(rhythm, patches)
    errors = [result.error for result in results.values()]
    try:
        if len(jobs) > 1 and all(isinstance(error, CredentialsRefused) for error in errors):
            run.rhythm.prove(writing=True)
            return _without_refused(rhythm, patches)
        looked_up = not all(job.named for job in jobs)
        if looked_up and all(isinstance(error, GateClosed | RhythmThrottled) for error in errors):
            # None was processed; without waiting here, all look-ups would have to be made again.
            if isinstance(errors[0], RhythmThrottled):
                run.rhythm.gate.close(errors[0].reason, errors[0].retry_after)
            run.rhythm.wait()
            return send(rhythm, patches)
    except ReadingStopped:
        pass
    return results


def send(rhythm: Rhythm, patches: Patches) -> Results:
    """Write each registration's patch. Returns the result of each; a failure of the whole call is the result of all."""
    if not patches:
        return {}
    if len(patches) == 1:
        ((id, operations),) = patches.items()
        try:
            return {id: ItemResult(ItemState.APPLIED, rhythm.patch(id, operations))}
        except ExamrelayError as error:
            return _all_failed(patches, error)
    try:
        return rhythm.batch(patches)
    except RhythmRejected:
        return _without_refused(rhythm, patches)
    except ExamrelayError as error:
        return _all_failed(patches, error)


def _without_refused(rhythm: Rhythm, patches: Patches) -> Results:
    """Find the item for which a batch was refused whole, and write the others: at most 9 batch calls for one in 100.

    Half of the suspects are sent. If they are accepted, the item is in the other half. If they are refused, it is among
    them, and the other half is set aside. All that was set aside goes in one call at the end. The last suspect is sent
    alone and fails only when refused alone, because a batch may also be refused for its size.
    """
    results: Results = {}
    suspects, aside = list(patches), list[str]()
    alone: ExamrelayError | None = None
    while len(suspects) > 1:
        half, rest = suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]
        try:
            results |= rhythm.batch({id: patches[id] for id in half})
            suspects, alone = rest, None
        except _REFUSED as refused:
            suspects, aside, alone = half, aside + rest, refused
        except ExamrelayError as error:
            return results | _all_failed([id for id in patches if id not in results], error)
    last = {id: patches[id] for id in suspects}
    results |= _all_failed(suspects, alone) if alone else send(rhythm, last)
    if aside:
        try:
            results |= rhythm.batch({id: patches[id] for id in aside})
        except _REFUSED:
            return results
        except ExamrelayError as error:
            results |= _all_failed(aside, error)
    return results


def _all_failed(ids: Mapping[str, object] | Sequence[str], error: ExamrelayError) -> Results:
    return {id: ItemResult(ItemState.FAILED, error=error) for id in ids}
