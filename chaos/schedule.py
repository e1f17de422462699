"""What happens in a run, drawn from its seed: who sits which exam, what is sent when, who dies when. Pure.

The same seed and sizes give the same schedule. Times are seconds from the start. Nothing of the product is imported.
"""

import json
import random
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

Json = dict[str, Any]
#: One association is well, one's Rhythm allows few calls, one's Rhythm is away for a while.
TENANTS: Final = ("steady", "paced", "outage")
#: Stands in every personal value: it must be found nowhere but in the ledger and in Rhythm.
CANARY: Final = "Canary-Ximena"
#: An exam that the tenants file lacks until it is changed in the middle of the run.
LATE_EXAM: Final = "CERT-LATE"
#: A registrar's own word, in a field that examrelay writes.
REGISTRARS_SCORE: Final = "77.75"

Kind = Literal[
    "plain", "twice", "rescored", "conflict", "ambiguous", "edited", "late exam", "nonsense", "drillster", "prov"
]
_KINDS: Final[dict[Kind, int]] = {
    "plain": 34,
    "twice": 8,
    "rescored": 18,
    "conflict": 4,
    "ambiguous": 3,
    "edited": 8,
    "late exam": 5,
    "nonsense": 4,
    "drillster": 10,
    "prov": 8,
}


@dataclass(frozen=True)
class Sending:
    """One delivery of a body: when it is first tried. `result`: what it says, as the registration would say it."""

    at: float
    source: str
    body: bytes
    #: (status, score) or None for nonsense.
    result: tuple[str, float] | None = None
    rescore: bool = False
    #: Sent as a Celery message, `tasks.receive`, instead of over HTTP.
    celery: bool = False
    #: With a header that some client or proxy adds, and that must not change what is recorded.
    upgrade: bool = False


@dataclass(frozen=True)
class Sitting:
    """One candidate's exam: the registrations that Rhythm has beforehand, and what is sent of it."""

    tenant: str
    kind: Kind
    who: str
    registrations: tuple[Json, ...]
    sendings: tuple[Sending, ...]
    #: When a registrar changes the first registration: in a field that examrelay writes, and one that it does not.
    edit_at: float | None = None

    @property
    def names(self) -> list[str]:
        """The ids of its registrations."""
        return [one["id"] for one in self.registrations]


@dataclass(frozen=True)
class Act:
    """One thing that the nemesis does. `seconds`: how long it lasts."""

    at: float
    what: str
    target: str
    seconds: float


@dataclass(frozen=True)
class Fault:
    """One scripted failure of a tenant's stand-in, for `seconds`."""

    at: float
    tenant: str
    settings: Json
    seconds: float


@dataclass(frozen=True)
class Schedule:
    """All of a run."""

    seed: int
    seconds: float
    sittings: tuple[Sitting, ...]
    acts: tuple[Act, ...]
    faults: tuple[Fault, ...]
    exam_map_at: float
    operator_at: tuple[float, ...] = field(default=())

    def only(self, kept: set[str]) -> "Schedule":
        """The same run with these sittings alone."""
        sittings = tuple(one for one in self.sittings if one.who in kept)
        return Schedule(self.seed, self.seconds, sittings, self.acts, self.faults, self.exam_map_at, self.operator_at)


def schedule(seed: int, events: int, seconds: float, workers: int) -> Schedule:
    """The run of a seed: about `events` deliveries over `seconds`, against so many worker processes."""
    draw = random.Random(f"{seed}.{events}.{seconds}.{workers}")
    sittings, number = [], 0
    while sum(len(one.sendings) for one in sittings) < events:
        sittings.append(_sitting(draw, f"{seed}-{number}", seconds))
        number += 1
    return Schedule(
        seed,
        seconds,
        tuple(sittings),
        tuple(_acts(draw, seconds, workers)),
        tuple(_faults(draw, seconds)),
        exam_map_at=seconds * draw.uniform(0.4, 0.6),
        operator_at=tuple(seconds * share for share in (0.35, 0.55, 0.75, 0.95)),
    )


def _sitting(draw: random.Random, who: str, seconds: float) -> Sitting:
    tenant = draw.choices(TENANTS, (6, 1, 3))[0]
    kind = draw.choices(list(_KINDS), list(_KINDS.values()))[0]
    exam = {"late exam": "exam-late", "drillster": "exam-2", "prov": "exam-2"}.get(kind, "exam-1")
    registrations = [_registration(who, exam)]
    if kind == "ambiguous":
        registrations.append(_registration(who, exam, "-b"))
    at = draw.uniform(0, 0.8 * seconds)
    celery = kind == "plain" and draw.random() < 0.2
    bodies = _bodies(draw, kind, who)
    draw.shuffle(bodies)
    sendings = [_sending(draw, at, seconds, celery, *one) for one in bodies]
    for one in [*sendings]:
        if draw.random() < 0.2:  # delivered again, by a sender that is not sure
            again = min(seconds, one.at + draw.uniform(0, 0.3 * seconds))
            sendings.append(replace(one, at=again))
    edit = draw.uniform(at, seconds) if kind == "edited" else None
    return Sitting(tenant, kind, who, tuple(registrations), tuple(sendings), edit)


def _sending(
    draw: random.Random, at: float, seconds: float, celery: bool, source: str, body: bytes, result: Any, rescore: bool
) -> Sending:
    return Sending(
        min(seconds, at + draw.expovariate(1 / (0.08 * seconds))),
        source,
        body,
        result,
        rescore,
        celery,
        draw.random() < 0.1,
    )


_Body = tuple[str, bytes, tuple[str, float] | None, bool]


def _bodies(draw: random.Random, kind: Kind, who: str) -> list[_Body]:
    score = draw.randrange(40, 100)
    match kind:
        case "twice":
            source, body, result, _ = _certiverse(who, score)
            return [(source, body, result, False), (source, body + b"\n", result, False)]
        case "rescored":
            other = (score + draw.randrange(1, 50)) % 100
            return [_certiverse(who, score), _certiverse(who, other, rescore=True)]
        case "conflict":
            return [_certiverse(who, score), _certiverse(who, (score + 7) % 100)]
        case "ambiguous":
            return [_certiverse(who, score, named=False)]
        case "late exam":
            return [_certiverse(who, score, exam=LATE_EXAM)]
        case "nonsense":
            nonsense = draw.choice([b"", b"{", b"[]", b'{"examDelivery": 7}', b"\xff\xfe", b"[" * 10_000])
            return [("certiverse", nonsense + f" {who}".encode(), None, False)]
        case "drillster":
            return [_drillster(who, score)]
        case "prov":
            return [_prov(who, score)]
    return [_certiverse(who, score, named=draw.random() < 0.7)]


def _registration(who: str, exam: str, suffix: str = "") -> Json:
    return {
        "id": f"reg-{who}{suffix}",
        "exam_id": exam,
        "student_id": f"stu-{who}",
        "status": "registered",
        "email_address": f"{who}@example.org",
        "name": CANARY,
        "date": "2026-01-05T00:00:00Z",
        "notes": "as it was",
    }


def _certiverse(who: str, score: float, *, named: bool = True, exam: str = "CERT-1", rescore: bool = False) -> _Body:
    body = {
        "examDelivery": {
            "deliverableId": f"dlv-{who}",
            "deliveryDateTime": "2026-05-04T11:00:00Z",
            "deliveryCompletedDateTime": "2026-05-04T12:30:00Z",
            "eligibilityId": f"reg-{who}" if named else None,
            "completeReasonCode": "candidate ended",
        },
        "candidate": {"orgCandidateId": f"stu-{who}", "firstName": CANARY, "email": f"{who}@example.org"},
        "exam": {"examName": "Certified Example", "examCode": exam, "languageCode": "en"},
        "examResult": {
            "passFail": "Pass" if score >= 70 else "Fail",
            "reportedScore": score,
            "scaled": score,
            "cutScore": 70,
            "timeOnExam": 88.5,
            "maxTimeOnExam": 120,
            "isRescore": rescore,
        },
    }
    return "certiverse", json.dumps(body).encode(), _says(score), rescore


def _drillster(who: str, score: float) -> _Body:
    body = {
        "eventId": f"event-{who}",
        "eventType": "TEST_COMPLETED",
        "id": f"attempt-{who}",
        "started": "2026-05-04T11:00:00Z",
        "completed": "2026-05-04T12:30:00Z",
        "score": {"percentage": score},
        "test": {"id": "DRILL-2"},
        "user": {
            "id": f"user-{who}",
            "name": CANARY,
            "thirdPartyIds": [{"id": f"stu-{who}", "thirdParty": "ACME"}],
        },
    }
    return "drillster", json.dumps(body).encode(), _says(score), False


def _prov(who: str, score: float) -> _Body:
    body = {
        "CandidateName": CANARY,
        "CandidateID": f"stu-{who}",
        "ExamCode": "PROV-2",
        "OverallScore": str(score),
        "Result": "1" if score >= 70 else "0",
        "ExamDate": "2026-05-04T12:30:00Z",
    }
    return "prov", json.dumps(body).encode(), _says(score), False


def _says(score: float) -> tuple[str, float]:
    return ("passed" if score >= 70 else "failed"), score


def _acts(draw: random.Random, seconds: float, workers: int) -> list[Act]:
    """Deaths and pauses, one after another, the last of them over before the run ends."""
    targets = [f"worker-{number}" for number in range(workers)]
    acts, at = [], draw.uniform(1, 3)
    while at < 0.9 * seconds:
        what, target = draw.choices(
            [
                ("kill", draw.choice(targets)),
                ("stop", draw.choice(targets)),
                ("kill", "web"),
                ("kill", "sweeper"),
                ("kill", "beat"),
                ("pause", "redis"),
                ("restart", "redis"),
                ("drop connections", "redis"),
            ],
            (8, 3, 2, 1, 1, 2, 2, 2),
        )[0]
        length = draw.uniform(0.2, 3.0)
        acts.append(Act(at, what, target, length))
        at += length + draw.expovariate(1 / 2.5)
    return acts


def _faults(draw: random.Random, seconds: float) -> list[Fault]:
    """Failures of Rhythm. One tenant is in an outage; the others meet every kind for a while."""
    writes, reads = ["patch", "batch"], ["get", "search", "student_exam"]
    kinds: list[Json] = [
        {"action": "status", "status": 429, "headers": {"Retry-After": "1"}, "probability": 0.5},
        {"action": "status", "status": 429, "probability": 0.4},
        {"action": "status", "status": 503, "probability": 0.4},
        {"action": "reset", "probability": 0.3},
        {"action": "hang", "seconds": 4, "probability": 0.15},
        {"action": "apply_then_lose", "kind": writes, "probability": 0.5},
        {"action": "apply_late", "kind": writes, "delay_ms": 1500, "probability": 0.4},
        {"action": "item_error", "status": 500, "probability": 0.2},
        {"action": "stale", "kind": reads, "probability": 0.5},
    ]
    began = seconds * draw.uniform(0.1, 0.4)
    faults = [Fault(began, "outage", {"action": "status", "status": 503, "times": None}, 0.3 * seconds)]
    for _ in range(max(4, round(seconds / 3))):
        settings = {"times": None, **draw.choice(kinds)}
        faults.append(
            Fault(draw.uniform(0, 0.85 * seconds), draw.choice(TENANTS), settings, draw.uniform(0.5, 0.15 * seconds))
        )
    return sorted(faults, key=lambda one: one.at)
