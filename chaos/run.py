"""One run: senders, a registrar, an operator, the nemesis and Rhythm's failures side by side; then what was seen."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import kombu.exceptions
import redis
import requests
from celery import Celery

from chaos.bodies import Json
from chaos.schedule import REGISTRARS_SCORE, TENANTS, Schedule, Sending, Sitting
from chaos.stack import ORG, PASSWORD, Stack, keys, stack
from tests.running import wait_until

#: When all failures are over, everything that waits for a machine must be done after so long. The longest single wait
#: is the gate's longest pause, 60 s, or a dead task's slot, 50 s.
QUIET_SECONDS: Final = 150.0
_SENDERS: Final = 16
_WAITING: Final = ("received", "ready")
#: Reasons that the operator does something about.
_ANSWERABLE: Final = ("unknown_exam", "registration_ambiguous", "worker_killer")


class Run:
    """What is noted while a schedule is played."""

    def __init__(self, schedule: Schedule, at: Stack) -> None:
        self.schedule, self.at = schedule, at
        self.receipts: list[Json] = []
        self.acts: list[Json] = []
        self.quiet_after: float | None = None
        self.refused: Counter[str] = Counter()
        self._over, self._sessions = threading.Event(), threading.local()
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
        sides += [partial(self._faults, tenant) for tenant in TENANTS]
        with ThreadPoolExecutor(len(sides) + 1) as pool:
            taking_back = pool.submit(self._take_back)
            try:
                for side in [pool.submit(side) for side in sides]:
                    side.result()
                self._become_quiet()
            finally:
                self._over.set()
            taking_back.result()

    def _wait_for(self, at: float) -> None:
        time.sleep(max(0.0, self._began + at - time.time()))

    # Senders

    def _send_all(self) -> None:
        every: list[tuple[Sending, Sitting | None]] = [(one, None) for one in self.schedule.strays]
        every += [(one, sitting) for sitting in self.schedule.sittings for one in sitting.sendings]
        with ThreadPoolExecutor(_SENDERS) as pool:
            sent = []
            for one, sitting in sorted(every, key=lambda each: each[0].at):
                self._wait_for(one.at)
                if one.celery or sitting is None:
                    sent.append(pool.submit(self._publish, one, sitting.tenant if sitting else "nobody"))
                else:
                    sent.append(pool.submit(self._send, one, sitting))
            for each in sent:
                each.result()

    def _send(self, one: Sending, sitting: Sitting) -> None:
        """Until it is accepted, as a platform does: whatever the answer was, the same body again."""
        url = f"{self.at.url}/v1/{sitting.tenant}/{one.source}"
        headers = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"} if one.upgrade else {}
        while True:
            try:
                answer = self._session().post(url, one.body, auth=("chaos", PASSWORD), headers=headers, timeout=5)
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

    def _session(self) -> requests.Session:
        """One of this thread's own."""
        if not hasattr(self._sessions, "mine"):
            self._sessions.mine = requests.Session()
            self._sessions.mine.trust_env = False
        mine: requests.Session = self._sessions.mine
        return mine

    def _publish(self, one: Sending, tenant: str) -> None:
        """A message of a Celery client that has none of our code; again until Redis has taken it."""
        arguments = [tenant, one.source, one.body.decode()]
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
            self.acts.append({"what": act.what, "target": act.target, "began": began, "ended": time.time()})

    def _registrar(self) -> None:
        edited = sorted(
            (one.edit_at, one.tenant, one.names[0]) for one in self.schedule.sittings if one.edit_at is not None
        )
        for at, tenant, name in edited:
            self._wait_for(at)
            fields = {"status": "failed", "score": float(REGISTRARS_SCORE), "notes": "the registrar's"}
            self.at.rhythms[tenant].edit(ORG, name, **fields)

    def _take_back(self) -> None:
        """Undo, as a registrar, some results as soon as they are written, when the writer does not know it yet."""
        left = {one.names[0]: one.tenant for one in self.schedule.sittings if one.kind == "taken back"}
        while left and not self._over.wait(0.1):
            for name, tenant in list(left.items()):
                if self.at.rhythms[tenant].history(ORG, name):
                    self.at.rhythms[tenant].edit(ORG, name, status="registered", score=None)
                    del left[name]

    def _faults(self, tenant: str) -> None:
        """Play the windows of a tenant's failures; they may overlap. Some candidates fail all the time."""
        mine = [one for one in self.schedule.faults if one.tenant == tenant]
        turns = sorted({0.0} | {turn for one in mine for turn in (one.at, one.at + one.seconds)})
        for turn in turns:
            self._wait_for(turn)
            self._fail(tenant, [one.settings for one in mine if one.at <= turn < one.at + one.seconds])

    def _fail(self, tenant: str, faults: list[Json], *, own: bool = True) -> None:
        """Let a stand-in fail in these ways alone, and with `own` for the candidates for whom it always fails."""
        for one in self.schedule.sittings:
            if one.tenant == tenant and (own or one.kind == "rejected"):
                faults = [*one.failures, *faults]
        self.at.rhythms[tenant].faults(*faults)

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
        waits = {reason for name in self._waiting_names() for reason in _ANSWERABLE if name.endswith(f":{reason}")}
        if "registration_ambiguous" in waits:
            held = self.at.command("held", "list", "--reason", "registration_ambiguous", "--json", "--limit", "1000")
            for event in held["events"]:
                if sitting := self._events.get(event["id"]):
                    self.at.command("replay", "--id", event["id"], "--registration", sitting.names[0], "--yes")
        for reason in waits - {"registration_ambiguous"}:
            self.at.command("replay", "--reason", reason, "--yes", "--keep-going", "--why", "chaos")
        if discards:
            self.at.command("discard", "--reason", "invalid_json", "--yes", "--keep-going", "--why", "chaos")

    def _waiting_names(self) -> set[str]:
        """State and reason of the events that wait for a person, such as `held:unknown_exam`."""
        counts = [self.at.client.hgetall(f"er:{tenant}:counts") for tenant in TENANTS]
        return {name for each in counts for name, count in each.items() if ":" in name and int(count) > 0}

    # The end

    def _become_quiet(self) -> None:
        """Restart the workers, which read the exam map, answer what waits, and wait until no event is on its way.

        The candidates for whom Rhythm always fails come last: until all others are done, it goes on failing for them.
        """
        for name in [one for one in self.at.commands if one.startswith("worker")]:
            self.at.kill(name)
            self.at.start(name)
        wait_until(lambda: requests.get(f"{self.at.url}/healthz", timeout=2).ok, 30, "the receiver")
        # What dead workers had taken goes back to its queue after five minutes: let them be over.
        for tag in self.at.client.zrange("unacked_index", 0, -1):
            self.at.client.zadd("unacked_index", {tag: 0}, xx=True)
        began, failing = time.time(), sum(one.kind == "own failure" for one in self.schedule.sittings)
        if self._waits_until_only(failing):
            self.quiet_after = time.time() - began
            for tenant in TENANTS:
                self._fail(tenant, [], own=False)
            self.at.command("replay", "--state", "ready", "--yes", "--keep-going")
            self._waits_until_only(0)

    def _waits_until_only(self, failing: int) -> bool:
        """Whether, soon enough, nothing waits for a machine but so many events, and nothing for the operator."""
        deadline, quiet = time.time() + QUIET_SECONDS, 0
        while quiet < 2 and time.time() < deadline:
            if self._waiting_names() & {f"{state}:{reason}" for state in ("held", "dead") for reason in _ANSWERABLE}:
                self._answer(discards=False)
            quiet = quiet + 1 if self._on_their_way() <= failing else 0
            time.sleep(0.5)
        return quiet == 2

    def _on_their_way(self) -> int:
        """Events that wait for a machine, and messages that bring a result."""
        counts = [self.at.client.hget(f"er:{tenant}:counts", state) for tenant in TENANTS for state in _WAITING]
        queues = ("examrelay.receive", "examrelay.receive.taken")
        messages = self.at.client.hlen("unacked") + sum(self.at.client.llen(queue) for queue in queues)
        return sum(int(count or 0) for count in counts) + messages

    def seen(self) -> Json:
        """All that the checker is given."""
        client, events = self.at.client, [f"er:{tenant}:event:*" for tenant in TENANTS]
        tenants = {tenant: self._seen_of(tenant) for tenant in TENANTS}
        ledger = keys(client, events + [f"er:{tenant}:registration:*" for tenant in TENANTS])
        return {
            "tenants": tenants,
            "events": self.at.command("events", "list", "--json", "--limit", "1000000"),
            "audit": self.at.command("audit", "--json"),
            "status": self.at.command("status", "--json"),
            "left": self._left(),
            "marked": {key: [mark for mark in _MARKS if mark in value] for key, value in ledger.items()},
            "strays": self.at.command("strays", "list", "--json"),
            "receipts": self.receipts,
            "acts": self.acts,
            "refused": self.refused,
            "restarts": self.at.restarts,
            "quiet_after": self.quiet_after,
            "metrics": requests.get(f"{self.at.url}/metrics", timeout=10).text,
            "sentry": [one.decode("latin-1") for one in self.at.envelopes],
        }

    def _left(self) -> Json:
        """What is still on its way. The sweep is, for a moment, each second: nothing is left if it is gone once."""
        left: Json = {}
        for _ in range(20):
            left = keys(self.at.client, ["er:*:slots", "er:*:hint", "unacked*", "examrelay*", "er:malformed"])
            if not left:
                break
            time.sleep(0.3)
        return left

    def _seen_of(self, tenant: str) -> Json:
        rhythm = self.at.rhythms[tenant]
        names = [name for one in self.schedule.sittings if one.tenant == tenant for name in one.names]
        return {
            "records": {name: rhythm.record(ORG, name) for name in names},
            "requests": rhythm.requests(),
            "calls": rhythm.counts()["calls"],
        }


#: Fields of the ledger's hashes that only an event under way has.
_MARKS: Final = ("lease", "intent", "owner")


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
