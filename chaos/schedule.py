"""What happens in a run, drawn from its seed: who sits which exam, what is sent when, who dies when. Pure.

The same seed and sizes give the same schedule. Times are seconds from the start. Nothing of the product is imported.
"""

import random
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from chaos.bodies import CANARY, Body, Json, certiverse, drillster, prov, registration

#: One association is well, one's Rhythm allows few calls, one's Rhythm is away for a while.
TENANTS: Final = ("steady", "paced", "outage")
WRITES: Final = ["patch", "batch"]
READS: Final = ["get", "search", "student_exam"]
#: An exam that the tenants file lacks until it is changed in the middle of the run.
LATE_EXAM: Final = "CERT-LATE"
#: A registrar's own word, in a field that examrelay writes.
REGISTRARS_SCORE: Final = "77.75"

Kind = Literal[
    "plain",
    "twice",
    "rescored",
    "conflict",
    "ambiguous",
    "edited",
    "late exam",
    "nonsense",
    "drillster",
    "prov",
    "rejected",
    "own failure",
    "taken back",
    "lost, then stale",
]
_KINDS: Final[dict[Kind, int]] = {
    "plain": 34,
    "twice": 8,
    "rescored": 18,
    "conflict": 4,
    "ambiguous": 2,
    "edited": 8,
    "late exam": 5,
    "nonsense": 4,
    "drillster": 10,
    "prov": 8,
    "rejected": 3,
    "own failure": 2,
    "taken back": 3,
    "lost, then stale": 3,
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

    @property
    def failures(self) -> list[Json]:
        """How Rhythm fails for this candidate alone, from the start. Its words quote personal data."""
        words = {"message": f"{CANARY} <{self.who}@example.org> cannot be served"}
        match self.kind:
            case "rejected":
                ids = [self.names[0]]
                refusal = {"times": None, "ids": ids, "status": 422, "body": words}
                return [{"action": "item_error", **refusal}, {"action": "status", "kind": "patch", **refusal}]
            case "own failure":
                ids = [f"stu-{self.who}"]
                failure = {"action": "status", "status": 500, "times": None, "body": words}
                return [{**failure, "kind": "student_exam", "ids": ids}]
            case "taken back":
                return [{"action": "apply_then_lose", "kind": WRITES, "ids": [self.names[0]]}]
            case "lost, then stale":
                lost = {"action": "apply_then_lose", "kind": WRITES, "ids": [self.names[0]]}
                return [lost, {"action": "stale", "kind": READS, "ids": [self.names[0]], "times": None}]
        return []


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
    operator_at: tuple[float, ...]
    #: Celery messages for a tenant that does not exist.
    strays: tuple[Sending, ...]

    def only(self, kept: set[str]) -> "Schedule":
        """The same run with these sittings alone."""
        return replace(self, sittings=tuple(one for one in self.sittings if one.who in kept))


def schedule(seed: int, events: int, seconds: float, workers: int) -> Schedule:
    """The run of a seed: about `events` deliveries over `seconds`, against so many worker processes."""
    draw = random.Random(f"{seed}.{events}.{float(seconds)}.{workers}")
    acts = _acts(draw, seconds, workers)
    sittings, number = [], 0
    while sum(len(one.sendings) for one in sittings) < events:
        sittings.append(_sitting(draw, f"{seed}-{number}", seconds, acts))
        number += 1
    return Schedule(
        seed,
        seconds,
        tuple(sittings),
        tuple(acts),
        tuple(_faults(draw, seconds)),
        exam_map_at=seconds * draw.uniform(0.4, 0.6),
        operator_at=tuple(seconds * share for share in (0.35, 0.6, 0.9)),
        strays=tuple(Sending(draw.uniform(0, seconds), "certiverse", _stray(number), celery=True) for number in (1, 2)),
    )


def _stray(number: int) -> bytes:
    _, body, _, _ = certiverse(f"stray-{number}", 90)
    return body


def _sitting(draw: random.Random, who: str, seconds: float, acts: list[Act]) -> Sitting:
    tenant = draw.choices(TENANTS, (6, 1, 3))[0]
    kind = draw.choices(list(_KINDS), list(_KINDS.values()))[0]
    exam = {"late exam": "exam-late", "drillster": "exam-2", "prov": "exam-2"}.get(kind, "exam-1")
    registrations = [registration(who, exam)]
    if kind == "ambiguous":
        registrations.append(registration(who, exam, "-b"))
    at = draw.uniform(0, 0.8 * seconds)
    bodies = _bodies(draw, kind, who)
    draw.shuffle(bodies)
    sendings = [_sending(draw, at, seconds, *one) for one in bodies]
    for one in [*sendings]:
        if draw.random() < 0.2:  # delivered again, by a sender that is not sure
            again = min(seconds, one.at + draw.uniform(0, 0.3 * seconds))
            sendings.append(replace(one, at=again))
    if kind == "plain" and draw.random() < 0.3:
        sendings = [_as_message(draw, one, acts) for one in sendings]
    edit = draw.uniform(at, seconds) if kind == "edited" else None
    return Sitting(tenant, kind, who, tuple(registrations), tuple(sendings), edit)


def _sending(
    draw: random.Random, at: float, seconds: float, source: str, body: bytes, result: Any, rescore: bool
) -> Sending:
    at = min(seconds, at + draw.expovariate(1 / (0.08 * seconds)))
    return Sending(at, source, body, result, rescore, upgrade=draw.random() < 0.1)


def _as_message(draw: random.Random, one: Sending, acts: list[Act]) -> Sending:
    """As a Celery message, mostly just when a worker dies or Redis has no memory: with its task half done."""
    moments = [act.at for act in acts if act.what == "fill" or (act.what == "kill" and "worker" in act.target)]
    at = draw.choice(moments) + draw.uniform(-0.04, 0.02) if moments and draw.random() < 0.7 else one.at
    return replace(one, at=at, celery=True)


def _bodies(draw: random.Random, kind: Kind, who: str) -> list[Body]:
    score = draw.randrange(40, 100)
    match kind:
        case "twice":
            source, body, result, _ = certiverse(who, score)
            return [(source, body, result, False), (source, body + b"\n", result, False)]
        case "rescored":
            other = (score + draw.randrange(1, 50)) % 100
            return [certiverse(who, score), certiverse(who, other, rescore=True)]
        case "conflict":
            return [certiverse(who, score), certiverse(who, (score + 7) % 100)]
        case "ambiguous" | "own failure":
            return [certiverse(who, score, named=False)]
        case "late exam":
            return [certiverse(who, score, exam=LATE_EXAM)]
        case "nonsense":
            nonsense = draw.choice([b"", b"{", b"[]", b'{"examDelivery": 7}', b"\xff\xfe", b"[" * 10_000])
            return [("certiverse", nonsense + f" {CANARY} {who}".encode(), None, False)]
        case "drillster":
            return [drillster(who, score)]
        case "prov":
            return [prov(who, score)]
    return [certiverse(who, score, named=draw.random() < 0.7)]


def _acts(draw: random.Random, seconds: float, workers: int) -> list[Act]:
    """Deaths and pauses, one after another, the last of them over before the run ends."""
    targets = [f"worker-{number}" for number in range(workers)]
    acts, at = [], draw.uniform(1, 2)
    while at < 0.9 * seconds:
        what, target = draw.choices(
            [
                ("kill", draw.choice(targets)),
                ("kill", "workers"),
                ("stop", draw.choice(targets)),
                ("kill", "web"),
                ("kill", "sweeper"),
                ("kill", "beat"),
                ("pause", "redis"),
                ("restart", "redis"),
                ("fill", "redis"),
                ("drop connections", "redis"),
            ],
            (6, 3, 3, 2, 1, 1, 2, 2, 3, 2),
        )[0]
        length = draw.uniform(0.2, 2.0)
        acts.append(Act(at, what, target, length))
        at += length + draw.expovariate(1 / 0.7)
    return acts


def _faults(draw: random.Random, seconds: float) -> list[Fault]:
    """Failures of Rhythm. One tenant is in an outage; the others meet every kind for a while."""
    kinds: list[Json] = [
        {"action": "status", "status": 429, "headers": {"Retry-After": "1"}, "probability": 0.5},
        {"action": "status", "status": 429, "probability": 0.4},
        {"action": "status", "status": 503, "probability": 0.4},
        {"action": "reset", "probability": 0.3},
        {"action": "hang", "seconds": 4, "probability": 0.15},
        {"action": "apply_then_lose", "kind": WRITES, "probability": 0.5},
        {"action": "apply_late", "kind": WRITES, "delay_ms": 1500, "probability": 0.4},
        {"action": "item_error", "status": 500, "probability": 0.2},
        {"action": "stale", "kind": READS, "probability": 0.7},
    ]
    began = seconds * draw.uniform(0.1, 0.4)
    faults = [Fault(began, "outage", {"action": "status", "status": 503, "times": None}, 0.3 * seconds)]
    for _ in range(max(6, round(seconds / 2))):
        settings = {"times": None, **draw.choice(kinds)}
        tenant, length = draw.choices(TENANTS, (3, 1, 2))[0], draw.uniform(1, 2 + 0.15 * seconds)
        faults.append(Fault(draw.uniform(0, 0.85 * seconds), tenant, settings, length))
    return sorted(faults, key=lambda one: one.at)
