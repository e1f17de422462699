"""How a batch is written to Rhythm: one patch or one batch, and the search for the item that Rhythm refuses it for.

A registration without a result was not written, and Rhythm said nothing of it: it is planned anew.
"""

from collections.abc import Mapping, Sequence

from schemas.rhythm import PatchOperation
from tasks.job import Job
from tasks.run import Run
from worker import changes
from worker.errors import ExamrelayError
from worker.rhythm import ItemResult, ItemState, Rhythm, RhythmRejected

Patches = Mapping[str, Sequence[PatchOperation]]
Results = dict[str, ItemResult]


def write(run: Run, jobs: list[Job]) -> dict[str, ItemResult]:
    """Call Rhythm: one patch, or one batch. Only now is anything changed there."""
    guard = run.rules.rhythm.guard
    return send(run.rhythm.rhythm, {job.target.id: changes.patch(job.changed, job.target, guard) for job in jobs})


def send(rhythm: Rhythm, patches: Patches) -> Results:
    """Write each registration's patch. Returns each one's result; a failure of the whole call is each one's."""
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
    """Find the item for which a batch was refused whole, and write the others: at most 9 batches for one in 100.

    Half of the suspects are sent. Accepted, the culprit is in the other half; refused, it is in this one and the other
    is set aside. What was set aside goes in one call at the end. Nothing is blamed that was not refused alone: a batch
    may be refused for its size, and then there is no culprit.
    """
    results: Results = {}
    suspects, aside = list(patches), list[str]()
    alone: RhythmRejected | None = None
    while len(suspects) > 1:
        half, rest = suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]
        try:
            results |= rhythm.batch({id: patches[id] for id in half})
            suspects, alone = rest, None
        except RhythmRejected as refused:
            suspects, aside, alone = half, aside + rest, refused
        except ExamrelayError as error:
            return results | _all_failed([id for id in patches if id not in results], error)
    last = {id: patches[id] for id in suspects}
    results |= _all_failed(suspects, alone) if alone else send(rhythm, last)
    if aside:
        try:
            results |= rhythm.batch({id: patches[id] for id in aside})
        except RhythmRejected:
            return results
        except ExamrelayError as error:
            results |= _all_failed(aside, error)
    return results


def _all_failed(ids: Mapping[str, object] | Sequence[str], error: ExamrelayError) -> Results:
    return {id: ItemResult(ItemState.FAILED, error=error) for id in ids}
