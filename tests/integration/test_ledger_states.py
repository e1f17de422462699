"""Any sequence of moves, crashes and expired leases leaves each event in one state, counted and indexed there."""

from datetime import timedelta
from typing import Any

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from worker.ledger import decisions, queries
from worker.ledger.audit.books import books
from worker.ledger.decisions import Decision
from worker.ledger.events import Ledger
from worker.ledger.recorder import BlockingRecorder
from worker.ledger.work import Claim
from worker.settings import Settings

T = "acme"
REGISTRATIONS = st.sampled_from(["reg-1", "reg-2"])
NUMBERS = st.integers(0, 5)
VERSIONS = st.sampled_from(["o-1", "o-2", "r-3"])
WAITING = (EventState.RECEIVED, EventState.READY)


class Moves(RuleBasedStateMachine):
    """Two workers, a receiver, an operator and a sweeper, in any order; the model is what each was told."""

    client: "redis.Redis"

    @initialize()
    def begin(self) -> None:
        self.client.flushall()
        self.ledger = Ledger(self.client, timedelta(seconds=60))
        self.recorder = BlockingRecorder(self.client, Settings())
        self.claims: dict[str, Claim] = {}
        self.tokens = 0
        self.synced: set[str] = set()

    @rule(number=NUMBERS)
    def deliver(self, number: int) -> None:
        before = queries.event(self.client, T, f"evt_{number}")
        receipt = self.recorder.record(T, f"evt_{number}", Source.CERTIVERSE, "", b"{}", "")
        assert receipt.duplicate == (before is not None)

    @rule(limit=st.integers(1, 4), slots=st.integers(0, 2))
    def claim(self, limit: int, slots: int) -> None:
        self.tokens += 1
        token = f"token-{self.tokens}"
        claim = self.ledger.claim(T, token, limit, slots)
        assert len(claim.works) <= limit
        if claim.works:
            self.claims[token] = claim

    @rule(data=st.data())
    def prepare(self, data: st.DataObject) -> None:
        if not self.claims:
            return
        token = data.draw(st.sampled_from(sorted(self.claims)))
        plans = [self.draw_plan(data, work.id) for work in self.claims[token].works]
        told = self.ledger.prepare(T, token, plans)
        for plan, one in zip(plans, told, strict=True):
            event = queries.event(self.client, T, plan["id"])
            assert one.answer != "ready" or (event is not None and event.state is EventState.READY)
        assert self.ledger.prepare(T, token, plans) == told, "it may be repeated"

    def draw_plan(self, data: st.DataObject, id: str) -> dict[str, Any]:
        delivery, version = f"certiverse:{data.draw(st.sampled_from('ab'))}", data.draw(VERSIONS)
        return {"id": id, "delivery": delivery, "version": version, "who": "", "accepts": {}}

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        if not self.claims:
            return
        token = data.draw(st.sampled_from(sorted(self.claims)))
        claim = self.claims.pop(token)
        before = {work.id: queries.event(self.client, T, work.id) for work in claim.works}
        chosen = [self.draw_decision(data, work.id, before[work.id]) for work in claim.works]
        states = self.ledger.apply(T, token, chosen)
        again = self.ledger.apply(T, token, chosen)
        assert all(state == "lost" for state in again), "a repeated settlement moves nothing"
        for decision, state in zip(chosen, states, strict=True):
            event = before[decision.id]
            assert state == "lost" or (event is not None and event.state in WAITING)
            if state == EventState.SYNCED:
                assert decision.id not in self.synced, "an event is synced once"
                self.synced.add(decision.id)
        if data.draw(st.booleans()):
            self.ledger.apply(T, token, [], last=True)

    @rule(data=st.data(), registration=REGISTRATIONS)
    def intend(self, data: st.DataObject, registration: str) -> None:
        if not self.claims:
            return
        token = data.draw(st.sampled_from(sorted(self.claims)))
        work = self.claims[token].works[0]
        rev = self.client.hget(f"er:{T}:registration:{registration}", "rev") or b"0"
        plan = {"id": work.id, "registration": registration, "rev": rev.decode()}
        event = queries.event(self.client, T, work.id)
        delivery = event.delivery if event else None
        plan["delivery_rev"] = (self.client.hget(f"er:{T}:delivery:{delivery}", "rev") or b"0").decode()
        plan["intent"] = f'{{"registration": "{registration}", "base": "1", "values": "{{}}"}}'
        first = self.ledger.intend(T, token, [plan])
        assert self.ledger.intend(T, token, [plan]) == first, "an intent may be repeated"

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        if self.claims:
            self.claims.pop(data.draw(st.sampled_from(sorted(self.claims))))

    @rule(index=st.sampled_from(["due:process", "due:sync"]))
    def leases_expire(self, index: str) -> None:
        due = f"er:{T}:{index}"
        for id in self.client.zrange(due, 0, -1):
            self.client.zadd(due, {id: 0})

    @rule(number=NUMBERS, discard=st.booleans())
    def steer(self, number: int, discard: bool) -> None:
        before = queries.event(self.client, T, f"evt_{number}")
        lease, intent = self.client.hmget(f"er:{T}:event:evt_{number}", "lease", "intent")
        now = queries.redis_now(self.client)
        leased = lease is not None and before is not None and before.due_at is not None and before.due_at > now
        act = self.ledger.discard if discard else self.ledger.replay
        moved, _ = act(T, f"evt_{number}", "op", "why" if discard else {})  # type: ignore[operator]
        waits = before is not None and before.state in (EventState.RECEIVED, EventState.READY)
        stopped = before is not None and before.state in (EventState.HELD, EventState.DEAD)
        assert moved == (stopped or (waits and not leased and intent is None))

    @rule(prune=st.booleans())
    def sweep(self, prune: bool) -> None:
        if prune:
            for id in self.client.zrange(f"er:{T}:events", 0, 1):
                self.client.zadd(f"er:{T}:events", {id: 1})
                self.client.hset(f"er:{T}:event:{id.decode()}", "received_at", 1)
        self.ledger.sweep(T, timedelta(seconds=5), 10)

    def draw_decision(self, data: st.DataObject, id: str, event: Event | None) -> Decision:
        if event is None:  # pruned meanwhile
            return decisions.defer(id, timedelta(0))
        made = [
            decisions.drop(id, EventState.IGNORED, "not a result"),
            decisions.drop(id, EventState.SUPERSEDED, "newer") if event.version else decisions.defer(id, timedelta(0)),
            decisions.stop(id, Reason.INVALID_JSON, "not JSON"),
            decisions.stop(id, Reason.UNKNOWN_EXAM, "which?"),
            decisions.stop(id, Reason.RETRIES_EXPIRED, "502", keep_intent=True),
            decisions.defer(id, timedelta(0), Reason.RHYTHM_UNAVAILABLE, "502", attempt=True, keep_intent=True),
        ]
        if event.state is EventState.READY:
            result, registration = data.draw(st.sampled_from(["written", "unchanged"])), data.draw(REGISTRATIONS)
            made.append(decisions.settle(id, result, registration, sys_version=2, values="{}"))
        made.append(decisions.defer(id, timedelta(0)))
        return data.draw(st.sampled_from(made))

    @invariant()
    def the_books_balance(self) -> None:
        found = books(self.client, T)
        assert found.differences == ()
        assert found.accepted == found.accounted + found.pruned

    @invariant()
    def an_owner_has_an_intent(self) -> None:
        for registration in ("reg-1", "reg-2"):
            owner = self.client.hget(f"er:{T}:registration:{registration}", "owner")
            if owner is not None:
                state = self.client.hget(f"er:{T}:event:{owner.decode()}", "state")
                assert state == EventState.READY.encode(), "a registration is owned by an event that is on its way"


def test_any_sequence_of_moves_leaves_each_event_in_exactly_one_state(client: "redis.Redis") -> None:
    Moves.client = client
    run_state_machine_as_test(
        Moves,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_an_event_that_was_pruned_and_is_delivered_again_is_no_difference(client: "redis.Redis") -> None:
    """Its delivery's record, which is kept longer, leads to it again before it is prepared."""
    ledger, recorder = Ledger(client, timedelta(seconds=60)), BlockingRecorder(client, Settings())
    recorder.record(T, "evt_1", Source.CERTIVERSE, "", b"{}", "")
    ledger.claim(T, "token", 1, 0)
    plan = {"id": "evt_1", "delivery": "certiverse:a", "version": "o-1", "who": "", "accepts": {}}
    assert [one.answer for one in ledger.prepare(T, "token", [plan])] == ["ready"]
    ledger.apply(T, "token", [decisions.defer("evt_1", timedelta(0))])
    assert ledger.discard(T, "evt_1", "op", "why")[0]
    client.zadd(f"er:{T}:events", {"evt_1": 1})
    client.hset(f"er:{T}:event:evt_1", "received_at", 1)
    assert ledger.sweep(T, timedelta(seconds=5), 10)[1] == 1
    assert not recorder.record(T, "evt_1", Source.CERTIVERSE, "", b"{}", "").duplicate
    assert books(client, T).differences == ()
