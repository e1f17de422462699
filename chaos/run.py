"""One run: senders, a registrar, an operator, the nemesis and Rhythm's failures side by side; then what was seen."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import kombu.exceptions
import redis
import requests
from celery import Celery

from chaos.schedule import REGISTRARS_SCORE, TENANTS, Json, Schedule, Sending, Sitting
from chaos.stack import ORG, PASSWORD, Stack, keys, stack
from tests.running import wait_until

#: How long a run may take to become quiet after its last act; a lease is 20 s, the gate's longest pause 60 s.
QUIET_SECONDS: Final = 240.0
_SENDERS: Final = 16
_WAITING: Final = ("received", "ready")


class Run:
    """What is noted while a schedule is played."""

    def __init__(self, schedule: Schedule, at: Stack) -> None:
        self.schedule, self.at = schedule, at
        self.receipts: list[Json] = []
        self.edits: list[Json] = []
        self.acts: list[Json] = []
        self.answered: set[str] = set()
        self.recovery: list[Json] = []
        self.refused: Counter[str] = Counter()
        self._lock, self._publishing = threading.Lock(), threading.Lock()
        self._celery = Celery(broker=at.valkey.url, set_as_current=False)
        self._celery.conf.broker_transport_options = {"socket_timeout": 3, "socket_connect_timeout": 3}
        self._began = time.time()
        self._events: dict[str, Sitting] = {}

    def play(self) -> None:
        """Everything of the schedule; returns when nothing waits any more."""
        for tenant in TENANTS:
            mine = [
                one for sitting in self.schedule.sittings for one in sitting.registrations if sitting.tenant == tenant
            ]
            self.at.rhythms[tenant].seed(ORG, mine)
        self.at.start_all()
        self._began = time.time()
        sides: list[Callable[[], None]] = [self._send_all, self._nemesis, self._registrar, self._operator, self._map]
        sides += [lambda tenant=tenant: self._faults(tenant) for tenant in TENANTS]  # type: ignore[misc]
        with ThreadPoolExecutor(len(sides)) as pool:
            for side in [pool.submit(side) for side in sides]:
                side.result()
        self._become_quiet()

    def _wait_for(self, at: float) -> None:
        time.sleep(max(0.0, self._began + at - time.time()))

    # Senders

    def _send_all(self) -> None:
        every = sorted(
            ((one, sitting) for sitting in self.schedule.sittings for one in sitting.sendings),
            key=lambda each: each[0].at,
        )
        with ThreadPoolExecutor(_SENDERS) as pool:
            for one, sitting in every:
                self._wait_for(one.at)
                pool.submit(self._send, one, sitting)

    def _send(self, one: Sending, sitting: Sitting) -> None:
        """Until it is accepted, as a platform does: whatever the answer was, the same body again."""
        if one.celery:
            self._publish(one, sitting)
            return
        url = f"{self.at.url}/v1/{sitting.tenant}/{one.source}"
        headers = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"} if one.upgrade else {}
        while True:
            try:
                answer = requests.post(url, one.body, auth=("chaos", PASSWORD), headers=headers, timeout=5)
                said = str(answer.status_code)
            except requests.RequestException as error:
                answer, said = None, type(error).__name__
            if answer is not None and answer.status_code == 202:
                break
            with self._lock:
                self.refused[said] += 1
            time.sleep(random.uniform(0.1, 0.5))
        receipt = answer.json() | {"who": sitting.who, "at": time.time(), "result": one.result, "rescore": one.rescore}
        with self._lock:
            self.receipts.append(receipt)
            self._events[receipt["id"]] = sitting

    def _publish(self, one: Sending, sitting: Sitting) -> None:
        """A message of a Celery client that has none of our code; again until Redis has taken it."""
        arguments = [sitting.tenant, one.source, one.body.decode()]
        while not self._published(arguments):
            time.sleep(random.uniform(0.1, 0.5))

    def _published(self, arguments: list[str]) -> bool:
        try:
            with self._publishing:
                self._celery.send_task("tasks.receive", arguments, queue="examrelay.receive", retry=False)
        except (OSError, redis.RedisError, kombu.exceptions.KombuError) as error:  # Redis is away
            with self._lock:
                self.refused[f"Celery {type(error).__name__}"] += 1
            return False
        return True

    # Those who act meanwhile

    def _nemesis(self) -> None:
        for act in self.schedule.acts:
            self._wait_for(act.at)
            began = time.time()
            self.at.perform(act)
            ended = time.time()
            self.acts.append({"what": act.what, "target": act.target, "began": began, "ended": ended})
            threading.Thread(
                target=self._until_work_moves, args=(f"{act.what} {act.target.split('-')[0]}", ended)
            ).start()

    def _until_work_moves(self, what: str, since: float) -> None:
        """How long it takes until something more is written to Rhythm."""
        before = None
        with suppress(TimeoutError, AssertionError):
            while time.time() - since < 60:
                with suppress(OSError, requests.RequestException):
                    now = sum(rhythm.counts()["writes"] for rhythm in self.at.rhythms.values())
                    if before is not None and now > before:
                        self.recovery.append({"after": what, "seconds": time.time() - since})
                        return
                    before = now if before is None else before
                time.sleep(0.1)

    def _registrar(self) -> None:
        edited = sorted(
            (one.edit_at, one.tenant, one.names[0]) for one in self.schedule.sittings if one.edit_at is not None
        )
        for at, tenant, name in edited:
            self._wait_for(at)
            fields = {"status": "failed", "score": float(REGISTRARS_SCORE), "notes": "the registrar's"}
            self.at.rhythms[tenant].edit(ORG, name, **fields)
            self.edits.append({"registration": name, "at": time.time()})

    def _faults(self, tenant: str) -> None:
        """Play the windows of a tenant's failures; they may overlap."""
        mine = [one for one in self.schedule.faults if one.tenant == tenant]
        turns = sorted({turn for one in mine for turn in (one.at, one.at + one.seconds)})
        for turn in turns:
            self._wait_for(turn)
            self.at.rhythms[tenant].clear_faults()
            for one in (each for each in mine if each.at <= turn < each.at + each.seconds):
                self.at.rhythms[tenant].fault(**one.settings)
        self.at.rhythms[tenant].clear_faults()

    def _map(self) -> None:
        """The exam map gets its missing exam; the processes read it when they start."""
        self._wait_for(self.schedule.exam_map_at)
        self.at.write_tenants(late=True)

    def _operator(self) -> None:
        for at in self.schedule.operator_at:
            self._wait_for(at)
            with suppress(Exception):  # Redis may be away just now: the next round
                self._answer(discards=at < self.schedule.seconds / 2)

    def _answer(self, *, discards: bool) -> None:
        """Answer what waits: which registration, the exam that is in the map now; and set some nonsense aside."""
        for tenant in TENANTS:
            for event in self.at.command("held", "list", "--tenant", tenant, "--json", "--limit", "1000")["events"]:
                sitting = self._events.get(event["id"])
                if event["reason"] == "registration_ambiguous" and sitting:
                    self.answered.add(event["id"])
                    self.at.command("replay", "--id", event["id"], "--registration", sitting.names[0], "--yes")
        for reason in ("unknown_exam", "worker_killer"):
            self.at.command("replay", "--reason", reason, "--yes", "--keep-going", "--why", "chaos")
        if discards:
            self.at.command("discard", "--reason", "invalid_json", "--yes", "--keep-going", "--why", "chaos")

    # The end

    def _become_quiet(self) -> None:
        """Restart what reads the exam map, answer what waits, and wait until no event is on its way."""
        for name in [one for one in self.at.commands if one.startswith("worker") or one in ("web", "sweeper")]:
            self.at.kill(name)
            self.at.start(name)
        wait_until(lambda: requests.get(f"{self.at.url}/healthz", timeout=2).ok, 30, "the receiver")
        # What dead workers had taken goes back to its queue after five minutes: let them be over.
        for tag in self.at.client.zrange("unacked_index", 0, -1):
            self.at.client.zadd("unacked_index", {tag: 0}, xx=True)
        deadline, rounds = time.time() + QUIET_SECONDS, 0
        while time.time() < deadline:
            if rounds % 5 == 0:
                with suppress(redis.RedisError, OSError, ValueError):
                    self._answer(discards=False)
                    self.at.command("replay", "--state", "ready", "--yes", "--keep-going")
            rounds += 1
            time.sleep(1)
            if not self._on_their_way():
                time.sleep(1)
                if not self._on_their_way() and not self._answerable():
                    return

    def _on_their_way(self) -> int:
        """Events that wait for a machine, and messages that bring a result."""
        counts = [self.at.client.hget(f"er:{tenant}:counts", state) for tenant in TENANTS for state in _WAITING]
        queues = ("examrelay.receive", "examrelay.receive.taken")
        messages = self.at.client.hlen("unacked") + sum(self.at.client.llen(queue) for queue in queues)
        return sum(int(count or 0) for count in counts) + messages

    def _answerable(self) -> bool:
        names = [f"{state}:{reason}" for state in ("held", "dead") for reason in _ANSWERABLE]
        return any(int(self.at.client.hget(f"er:{tenant}:counts", one) or 0) for tenant in TENANTS for one in names)

    def seen(self) -> Json:
        """All that the checker is given."""
        tenants = {}
        for tenant in TENANTS:
            rhythm, names = self.at.rhythms[tenant], [
                name for one in self.schedule.sittings if one.tenant == tenant for name in one.names
            ]  # fmt: skip
            tenants[tenant] = {
                "events": self.at.command("events", "list", "--tenant", tenant, "--json", "--limit", "1000000"),
                "audit": self.at.command("audit", "--tenant", tenant, "--json"),
                "records": {name: rhythm.record(ORG, name) for name in names},
                "requests": rhythm.requests(),
                "calls": rhythm.counts()["calls"],
            }
        status = self.at.command("status", "--json")
        left = keys(
            self.at.client, ["er:*:slots:*", "er:*:hint:*", "unacked*", "examrelay*", "er:malformed", "er:strays"]
        )
        leases = [
            key for tenant in TENANTS for key in self.at.client.scan_iter(f"er:{tenant}:event:*", count=1000)
            if any(self.at.client.hmget(key, "lease", "intent"))
        ]  # fmt: skip
        owners = [
            key for tenant in TENANTS for key in self.at.client.scan_iter(f"er:{tenant}:registration:*", count=1000)
            if self.at.client.hexists(key, "owner")
        ]  # fmt: skip
        return {
            "tenants": tenants, "status": status, "left": left, "leases": leases, "owners": owners,
            "receipts": self.receipts, "edits": self.edits, "acts": self.acts, "recovery": self.recovery,
            "refused": self.refused, "answered": sorted(self.answered),
            "metrics": requests.get(f"{self.at.url}/metrics", timeout=10).text,
            "sentry": [one.decode("latin-1") for one in self.at.envelopes],
        }  # fmt: skip


_ANSWERABLE: Final = ("unknown_exam", "registration_ambiguous", "worker_killer")


def play(schedule: Schedule, workers: int, folder: Path) -> Json:
    """Play a schedule and return what was seen; logs, ledger dump and request log are in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with stack(folder, workers) as at:
        run = Run(schedule, at)
        run.play()
        seen = run.seen()
        (folder / "ledger.json").write_text(json.dumps(keys(at.client, ["er:*"]), default=repr, indent=1))
    (folder / "seen.json").write_text(json.dumps(seen, default=str, indent=1))
    return seen
