"""The ledger: every event's moves. Each is one script that compares, sets and says whether it moved.

Knows nothing of what a result means; `tasks/` decides, this records. Keys: `keys.py`. Scripts: `lua/`.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Final

import redis

from schemas.event import EventState, Reason
from schemas.outcome import Source
from worker.ledger import decisions
from worker.ledger.client import Scripts
from worker.ledger.decisions import Decision
from worker.ledger.keys import key
from worker.ledger.sealed import PAUSE, SealBroken, Sealer, SealUnknown
from worker.ledger.times import IDENTITY_KEPT, PAYLOAD_KEPT, instant, milliseconds
from worker.ledger.totals import Totals
from worker.ledger.work import Claim, DeliveryRecord, Intent, Prepared, Sibling, Work
from worker.queues import SLOT_SECONDS

_NEWER: Final = "stored by a newer version of examrelay: left to its workers"


def one_line(words: str) -> str:
    """An operator's words as the history holds them: a line without tabs, not endless."""
    return " ".join(words.split())[:300]


class Ledger:
    """The moves, for workers and commands. Deliveries come in through `recorder.py`."""

    def __init__(
        self,
        client: "redis.Redis",
        lease: timedelta,
        keys: Sequence[bytes] = (),
        payload_kept: timedelta = PAYLOAD_KEPT,
        stopped_kept: timedelta = timedelta(0),
    ) -> None:
        self.client = client
        self.scripts = Scripts(client, payload_kept)
        self._stopped_kept = stopped_kept
        self.sealer = Sealer(keys)
        self._lease = lease

    def claim(self, tenant: str, token: str, limit: int, slots: int) -> Claim:
        """Take up to `limit` due events until the lease ends; behind a closed gate `received` ones only.

        Nothing when no slot is free. What a newer version has stored, and this one cannot read, is put back.
        """
        now, others, works, buried = self.scripts(
            "claim", tenant, limit, token, milliseconds(self._lease), slots, 1000 * SLOT_SECONDS
        )
        readable, strange = [], []
        for work in works:
            try:
                readable.append(self._work(*work))
            except (ValueError, TypeError, KeyError):  # a source, state or member of a version newer than this one
                strange.append(
                    decisions.defer(work[0].decode(), PAUSE, Reason.INTERNAL_ERROR, _NEWER, keep_intent=True)
                )
        self.apply(tenant, token, strange)
        return Claim(tuple(readable), instant(now), bool(others), tuple(id.decode() for id in buried))

    def prepare(self, tenant: str, token: str, plans: Sequence[dict[str, Any]]) -> list[Prepared]:
        """Make claimed events ready whose version of the delivery is new. They stay claimed.

        A plan has the event's id, delivery, version, who (`trace.py`), accepts, and ref if there is one.
        """
        if not plans:
            return []
        answers = self.scripts("prepare", tenant, token, json.dumps(plans))
        return [
            Prepared(
                answer.decode(), detail.decode(), delivery.decode(), version.decode(), self._delivery_record(*record)
            )
            for answer, detail, delivery, version, record in answers
        ]

    def apply(
        self, tenant: str, token: str, decided: Sequence[Decision], *, last: bool = False, totals: Totals | None = None
    ) -> list[str]:
        """Apply decisions, add to the totals. Returns each event's state: `lost` where the claim was no longer ours.

        `last`: the task ends with this, and gives its slot back.
        """
        if not decided and not last and not totals:
            return []
        arguments = [self._sealed(decision.as_arguments()) for decision in decided]
        arguments_json, totals_json = json.dumps(arguments), json.dumps(totals or {})
        states = self.scripts("apply", tenant, token, int(last), arguments_json, totals_json)
        return [state.decode() for state in states]

    def first_today(self, tenant: str, state: str, reason: str, day: date) -> bool:
        """Whether nobody has asked this before on that day."""
        told = key(tenant, "told", state, reason, day.isoformat())
        return bool(self.client.set(told, 1, nx=True, ex=timedelta(days=2)))

    def intend(self, tenant: str, token: str, plans: Sequence[dict[str, str]]) -> list[str]:
        """Take registrations and store what is about to be written. Returns ok, taken, moved or lost for each."""
        if not plans:
            return []
        sealed = [plan | {"intent": self.sealer.seal_text(plan["intent"], plan["id"])} for plan in plans]
        return [answer.decode() for answer in self.scripts("intend", tenant, token, json.dumps(sealed))]

    def replay(self, tenant: str, id: str, who: str, answers: dict[str, Any], why: str = "") -> tuple[bool, str]:
        """Held, dead or waiting, back to received and due at once, with answers beside those given before.

        Returns whether it moved, and the state it is in, with why it stayed there. Raises SealUnknown, SealBroken."""
        sealed = self.sealer.seal_text(json.dumps(self._with_earlier(tenant, id, answers)), id) if answers else ""
        return _steered(*self.scripts("steer", tenant, id, "replay", who, one_line(why), sealed))

    def _with_earlier(self, tenant: str, id: str, answers: dict[str, Any]) -> dict[str, Any]:
        """`answers`, and what earlier ones say that these do not; reasons once accepted stay accepted."""
        kept: Any = self.client.hget(key(tenant, "event", id), "answers")
        earlier = json.loads(self.sealer.open_text(kept.decode(), id)) if kept else {}
        accepted = sorted({*earlier.get("accept", ()), *answers.get("accept", ())})
        return earlier | answers | ({"accept": accepted} if accepted else {})

    def discard(self, tenant: str, id: str, who: str, why: str) -> tuple[bool, str]:
        """Held, dead or waiting, set aside for good. Returns as `replay`."""
        return _steered(*self.scripts("steer", tenant, id, "discard", who, one_line(why), ""))

    def forget(self, tenant: str, id: str, who: str) -> tuple[bool, str]:
        """Erase what is personal of an event, whatever its state. Returns whether it was, and the state or why not."""
        done, state, why, _ = self.scripts("steer", tenant, id, "forget", who, "", "")
        return bool(done), (state if done else why).decode()

    def sweep(self, tenant: str, patience: timedelta, prune: int, *, is_todays: bool = True) -> tuple[int, int]:
        """Hint due work that has no hint under way, discard what waits too long, prune. Returns hints, events pruned.

        `is_todays`: the tenant is in the tenants file; else nothing of it is hinted.
        """
        ages = milliseconds(IDENTITY_KEPT), prune, int(is_todays), milliseconds(self._stopped_kept)
        hinted, pruned = self.scripts("sweep", tenant, milliseconds(patience), *ages)
        return hinted, pruned

    def look(self, tenant: str, id: str) -> Work | None:
        """An event as a task would claim it; None when there is none. Takes nothing."""
        fields, stored, record = self.scripts("look", tenant, id)
        if not fields:
            return None
        return replace(self._work(id.encode(), fields, stored), delivery_record=self._delivery_record(*record))

    def _delivery_record(
        self, applied: bytes, registration: bytes, rev: bytes, siblings: list[list[Any]]
    ) -> DeliveryRecord:
        others = tuple(self._sibling(*sibling) for sibling in siblings)
        return DeliveryRecord(applied.decode() or None, registration.decode() or None, rev.decode(), others)

    def _sibling(
        self, version: bytes, event: bytes, state: bytes, received_at: bytes, is_stranger: int, doubt: bytes
    ) -> Sibling:
        intent, id = None, event.decode()
        if doubt:
            with suppress(SealUnknown, SealBroken):
                intent = Intent.from_json(self.sealer.open_text(doubt.decode(), id))
        known_state = EventState(state.decode()) if state else None
        return Sibling(version.decode(), id, known_state, instant(received_at), bool(is_stranger), intent)

    def note_look(self, tenant: str, id: str, who: str, what: str) -> bool:
        """Note in an event's history that a person looks at what is personal. False: there is no such event."""
        return bool(self.scripts("steer", tenant, id, "look", who, what, "")[0])

    def words(self, tenant: str, id: str) -> str | None:
        """Rhythm's own words for why the event stands where it does. Raises SealUnknown, SealBroken."""
        kept: Any = self.client.hget(key(tenant, "event", id), "words")
        return None if kept is None else self.sealer.open_text(kept.decode(), id)

    def payload(self, tenant: str, id: str) -> bytes | None:
        """The body as it was sent, or None when it is no longer kept."""
        stored: Any = self.client.get(key(tenant, "payload", id))
        return None if stored is None else self.sealer.open(stored, id)

    def _sealed(self, decision: dict[str, Any]) -> dict[str, Any]:
        """With what is personal in it sealed: a registration's result, and what Rhythm said of one."""
        for name, about in (("values", "registration"), ("words", "id")):
            if name in decision:
                decision[name] = self.sealer.seal_text(decision[name], decision[about])
        return decision

    def _work(self, id: bytes, fields: list[bytes], stored: bytes) -> Work:
        event = {name.decode(): value.decode() for name, value in zip(fields[::2], fields[1::2], strict=True)}
        first, trouble = event.get("first_attempt_at"), None
        if "doubt" in event:
            event.setdefault("intent", event["doubt"])
        for name in {"answers", "intent"} & event.keys():
            try:
                event[name] = self.sealer.open_text(event[name], id.decode())
            except (SealUnknown, SealBroken) as error:
                del event[name]
                trouble = error
        return Work(
            id=id.decode(),
            state=EventState(event["state"]),
            source=Source(event["source"]),
            path=event.get("path", ""),
            received_at=instant(event["received_at"]),
            attempts=int(event.get("attempts", 0)),
            first_attempt_at=instant(first) if first else None,
            answers=json.loads(event.get("answers", "{}")),
            problem=Reason(event["problem"]) if "problem" in event else None,
            delivery=event.get("delivery"),
            version=event.get("version"),
            intent=Intent.from_json(event["intent"]) if "intent" in event else None,
            sealed=stored,
            failed="attempts" in event and event.get("reason") == Reason.RHYTHM_UNAVAILABLE,
            trouble=trouble,
        )


def _steered(moved: int, state: bytes, why: bytes, wait: int) -> tuple[bool, str]:
    """Whether an event moved, and where it is; where it stayed because something goes on with it, what."""
    seconds = -(-wait // 1000)
    what = {
        b"leased": f", and a worker is at it: try again in {seconds} s",
        b"intended": f", and a write of it may have reached Rhythm: its next try, in {seconds} s, reads whether it did",
    }
    return bool(moved), state.decode() + ("" if moved else what.get(why, ""))
