"""Whether a run kept the promises. Pure: (schedule, what was seen) -> violations. Imports nothing of examrelay.

`seen` is what `run.py` collected: the senders' receipts, each event as the command lists it, the stand-ins' history of
every registration and their request logs, what Redis still holds, and all that was logged or sent to Sentry.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from chaos.bodies import CANARY, Json
from chaos.schedule import WRITES, Schedule, Sitting

#: A call that had its turn before a 429 was noted is not one made in spite of it.
NOTED_SECONDS: Final = 0.5
#: Where an event may end, by what was sent; `held` and `dead` with these reasons only.
_DONE: Final = ("synced", "duplicate", "superseded", "discarded", "ignored", "held", "dead")
_FIELDS: Final = ("status", "score")


class Violation(NamedTuple):
    """A promise that was not kept: by which check, about what, and what was seen."""

    check: str
    about: str
    detail: str


def check(schedule: Schedule, seen: Json, folder: Path | None = None) -> list[Violation]:
    """All violations. `folder`: where the logs are."""
    found = [*_accounted(seen), *_idle(seen), *_private(seen, folder), *_patient(seen), *_strays(schedule, seen)]
    by_who = _receipts(seen)
    for sitting in schedule.sittings:
        found += _sitting(sitting, by_who.get(sitting.who, []), seen)
    return found


def _receipts(seen: Json) -> dict[str, list[Json]]:
    by_who: dict[str, list[Json]] = {}
    for receipt in seen["receipts"]:
        by_who.setdefault(receipt["who"], []).append(receipt)
    return by_who


def _accounted(seen: Json) -> Iterator[Violation]:
    """Accepted is kept, each event is in one state, and the counts say the same."""
    accepted = {receipt["id"] for receipt in seen["receipts"]}
    listed = Counter(event["id"] for event in seen["events"])
    for id in accepted - listed.keys():
        yield Violation("accepted is kept", id, "it was accepted, and the ledger does not have it")
    for id, count in listed.items():
        if count > 1:
            yield Violation("one state", id, f"it is listed {count} times")
    for name in seen["tenants"]:
        states = Counter(event["state"] for event in seen["events"] if event["tenant"] == name)
        counted = {state: count for state, count in seen["status"]["tenants"][name]["states"].items() if count}
        if counted != dict(states):
            yield Violation("one state", name, f"counted {counted}, listed {dict(states)}")
    audit = seen["audit"]
    if audit["accepted"] != audit["accounted"] + audit["pruned"]:
        yield Violation("audit", "all", f"{audit['accepted']} accepted, {audit['accounted']} accounted for")


def _idle(seen: Json) -> Iterator[Violation]:
    """When all is done nothing is on its way: no queue, lease, slot, intent or mark is left."""
    for key, marks in seen["marked"].items():
        if marks:
            yield Violation("nothing is left", key, f"{marks} still there")
    for key, value in seen["left"].items():
        yield Violation("nothing is left", key, str(value)[:200])
    for event in seen["events"]:
        if event["state"] not in _DONE:
            about = f"{event['tenant']}: {event['state']} {event['reason']}, {event['attempts']} attempts"
            yield Violation("nothing waits for ever", event["id"], about)


def _strays(schedule: Schedule, seen: Json) -> Iterator[Violation]:
    """A message for a tenant that does not exist is kept for a person."""
    count = len(seen["strays"]["strays"])
    if count < len(schedule.strays):
        yield Violation("accepted is kept", "strays", f"{len(schedule.strays)} were sent, {count} are kept")


def _private(seen: Json, folder: Path | None) -> Iterator[Violation]:
    """Personal data is in the ledger and in Rhythm only."""
    texts = {"metrics": seen["metrics"], "Sentry": "".join(seen["sentry"]), "what is left": str(seen["left"])}
    if folder is not None:
        texts |= {path.name: path.read_text(errors="replace") for path in folder.glob("*.log")}
    for name, text in texts.items():
        if CANARY in text or "@example.org" in text:
            yield Violation("private", name, "personal data was found in it")


def _patient(seen: Json) -> Iterator[Violation]:
    """Nobody calls before a `Retry-After` that was noted; not judged where the nemesis stopped who had to note it."""
    disturbed = [(act["began"] - 4, act["ended"] + 2) for act in seen["acts"]]
    for name, tenant in seen["tenants"].items():
        until, told = 0.0, 0.0
        for call in sorted(tenant["requests"], key=lambda one: one["at"]):
            if told + NOTED_SECONDS < call["at"] < until - 0.05 and not any(a <= told <= b for a, b in disturbed):
                yield Violation(
                    "patient", name, f"call {call['n']} began {until - call['at']:.2f} s before it was allowed to"
                )
            if call["retry_after"] and call["ended_at"]:
                told, until = call["ended_at"], call["ended_at"] + _seconds(call["retry_after"], call["ended_at"])


def _seconds(retry_after: str, now: float) -> float:
    return float(retry_after) if retry_after.isdigit() else parsedate_to_datetime(retry_after).timestamp() - now


# What Rhythm says of a sitting


def _sitting(sitting: Sitting, receipts: Sequence[Json], seen: Json) -> Iterator[Violation]:
    tenant, theirs = seen["tenants"][sitting.tenant], [one for one in seen["events"] if one["tenant"] == sitting.tenant]
    events = {event["id"]: event for event in theirs}
    mine = [events[id] for id in {receipt["id"] for receipt in receipts} if id in events]
    if any(one.celery for one in sitting.sendings):  # without a receipt: found by what the payload says
        mine = [event for event in theirs if event["delivery"] == f"certiverse:dlv-{sitting.who}"]
    records = [tenant["records"][name] for name in sitting.names]
    for name, record in zip(sitting.names, records, strict=True):
        yield from _history(sitting, name, record)
    unheard = any(
        call["status"] is None and call["kind"] in WRITES and not set(sitting.names).isdisjoint(call["ids"])
        for call in tenant["requests"]
    )
    yield from _ends(sitting, mine, receipts, records, unheard)
    yield from _audited(sitting, seen["audit"])


def _history(sitting: Sitting, name: str, record: Json) -> Iterator[Violation]:
    """Once, never backwards, and no edit is lost: by the order of the writes."""
    results = {(one.result, one.rescore) for one in sitting.sendings if one.result}
    rescores = [result for result, rescore in results if rescore]
    written: list[tuple[Any, Any]] = []
    values: Json = {"status": "registered", "score": None}
    edited = False
    for write in record["history"]:
        values |= {field: new for field, (_, new) in write["changes"].items() if field in _FIELDS}
        if write["by"] == "registrar":
            edited = True
            continue
        now = (values["status"], _number(values["score"]))
        if not write["changes"]:
            yield Violation("once", name, f"version {write['sys_version']} wrote what was there already")
        elif now in written:
            yield Violation("once", name, f"{now} was written twice")
        if now not in {(status, float(score)) for (status, score), _ in results}:
            yield Violation("truth", name, f"{now} was written, and no result says so")
        if edited:
            yield Violation("no edit is lost", name, f"{now} was written over the registrar's edit")
        if any(one in written for one in rescores) and now not in rescores:
            yield Violation("never backwards", name, f"{now} was written after the rescore")
        written.append(now)
    letters = Counter((letter["status"], letter["sys_version"]) for letter in record["letters"])
    if any(count > 1 for count in letters.values()):
        yield Violation("once", name, f"letters went out twice: {dict(letters)}")


def _number(score: Any) -> float | None:
    return None if score is None else float(score)


def _ends(
    sitting: Sitting, events: Sequence[Json], receipts: Sequence[Json], records: Sequence[Json], unheard: bool
) -> Iterator[Violation]:
    """Rhythm says in the end what the model says, and each event is where it belongs.

    `unheard`: whether a write to one of its registrations got no answer.
    """
    first = records[0]["registration"]
    now = (first["status"], _number(first.get("score")))
    states = Counter((event["state"], event["reason"]) for event in events)
    results = [(one.result[0], float(one.result[1])) for one in sitting.sendings if one.result]
    rescored = [(one.result[0], float(one.result[1])) for one in sitting.sendings if one.result and one.rescore]
    seen = f"{now}; events {dict(states)}"
    match sitting.kind:
        case "nonsense":
            good = now == ("registered", None) and all(state in ("dead", "discarded") for state, _ in states)
        case "rejected":
            good = now == ("registered", None) and states == {("dead", "rhythm_rejected"): 1}
        case "taken back":  # held, or synced where the write was known before it was undone
            good = now == ("registered", None) and set(states) <= {("held", "registration_edited"), ("synced", None)}
        case "edited":
            good = first["notes"] == "the registrar's" and now == ("failed", 77.75)
        case "conflict":
            held = states["held", "result_conflict"]
            # Both wait although one of them stands: only where the write was applied when nobody heard of it.
            good = (now in results and (held == 1 or unheard)) or (now == ("registered", None) and held == 2)
        case "twice":  # the same result in other bytes
            good = now == results[0] and states == {("synced", None): 1, ("duplicate", None): 1}
        case "rescored":
            good = now == rescored[0] and set(states) <= {("synced", None), ("superseded", None)}
        case _:
            good = now == results[0] and set(states) == {("synced", None)}
    if not good:
        yield Violation("Rhythm says what the model says", f"{sitting.kind} {sitting.names[0]}", seen)
    if len(records) > 1 and records[1]["history"]:
        yield Violation("never a guess", sitting.names[1], "the other registration was written")
    if {receipt["id"] for receipt in receipts} - {event["id"] for event in events}:
        yield Violation("accepted is kept", sitting.who, "an event of it is missing")
    if len(events) != len({one.body for one in sitting.sendings}):
        yield Violation("once", sitting.who, "the same body became two events, or two bodies one")


def _audited(sitting: Sitting, audit: Json) -> Iterator[Violation]:
    """Audit reads Rhythm back and finds only what a registrar has changed."""
    for one in audit["differences"]:
        if one["registration"] in sitting.names and sitting.kind not in ("edited", "taken back"):
            yield Violation("audit", one["registration"], str(one))
