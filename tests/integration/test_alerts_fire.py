"""Each alert fires after the failure that it is about, made for real, and no other one does.

The failure is made in the ledger; what `/metrics` shows before and after is given to promtool as an hour of samples.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import celery
import pytest

from schemas.event import Reason
from tests.events import certiverse
from tests.pipeline import TENANT, Pipeline
from tests.running import ROOT
from tests.scrape import Sample, Scrape, read
from worker.ledger import strays
from worker.ledger.client import Scripts
from worker.ledger.processes import Presence, Process, ended
from worker.receiver.metrics import Measures

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool"),
]
RULES = ROOT / "deploy" / "alerts.yml"
NAMES = re.findall(r"- alert: (\w+)", RULES.read_text())
WATCHED = set(re.findall(r"examrelay_\w+", " ".join(re.findall(r"expr: (.*)", RULES.read_text()))))
WORKER = Process("worker", "worker@here", "0123456789ab", 7, "0.1.0")


class Scene:
    """A pipeline, a receiver's own figures, and what one can do to them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.redis = pipeline.services.redis
        self.receiver = Measures(pipeline.services.tenants)
        self.redis.hset("er:sweep", "at", self.now())
        Scripts(self.redis)("seen", *Presence(WORKER).arguments())

    def now(self) -> int:
        return int(self.redis.time()[0]) * 1000

    def samples(self) -> dict[Sample, float]:
        return read(Scrape(self.pipeline.services).text + self.receiver.text())

    def nothing(self) -> None: ...

    def without_redis(self) -> None:
        self.redis.set("er:tenants", "no set")

    def no_sweep(self) -> None:
        self.redis.hset("er:sweep", "at", self.now() - 200_000)

    def nothing_moves(self) -> None:
        id = self.pipeline.deliver(certiverse())
        self.redis.zadd(f"er:{TENANT}:due:process", {id: self.now() - 200_000})

    def late_but_moving(self) -> None:
        id = self.pipeline.deliver(certiverse())
        self.redis.zadd(f"er:{TENANT}:due:process", {id: self.now() - 2_000_000})
        self.redis.set(f"er:{TENANT}:moved", self.now())

    def no_worker(self) -> None:
        ended(self.redis, WORKER.name)

    def silent(self) -> None:
        self.redis.zincrby("er:processes.seen", -60_000, WORKER.name)

    def a_worker_died(self) -> None:
        self.pipeline.deliver(certiverse())
        self.pipeline.ledger.claim(TENANT, "one", 1, 0)
        self.pipeline.due_now()
        self.pipeline.ledger.claim(TENANT, "two", 1, 0)

    def full(self) -> None:
        self.redis.config_set("maxmemory", int(self.redis.info("memory")["used_memory"] * 1.1))

    def nearly_full(self) -> None:
        self.redis.config_set("maxmemory", int(self.redis.info("memory")["used_memory"] * 1.3))

    def credentials(self) -> None:
        self.pipeline.services.gate(TENANT).close(Reason.CREDENTIALS_REFUSED, timedelta(hours=1))

    def gate(self) -> None:
        self.pipeline.services.gate(TENANT).close(Reason.RHYTHM_UNAVAILABLE, timedelta(hours=1))

    def dead(self) -> None:
        self.pipeline.run(b"no JSON")

    def many_held(self) -> None:
        self.pipeline.run(*(certiverse(f"dlv-{n}", exam="CERT-9") for n in range(60)))

    def an_old_one(self) -> None:
        (event,) = self.pipeline.run(certiverse(exam="CERT-9"))
        self.redis.zincrby(f"er:{TENANT}:held", -4 * 86_400_000, event.id)

    def a_stray(self) -> None:
        strays.keep(self.redis, self.pipeline.ledger.sealer, "no such tenant", "id", b"content")

    def misdirected(self) -> None:
        with celery.Celery(broker=self.pipeline.services.settings.redis.url, set_as_current=False) as client:
            client.send_task("tasks.receive", args=[TENANT, "certiverse", "{}"])

    def answered(self, status: int) -> None:
        self.receiver.refused(TENANT, "certiverse", status)


#: What is done, and the alerts that it must fire; no other one may.
SCENES: dict[str, tuple[Callable[[Scene], None], set[str]]] = {
    "nothing": (Scene.nothing, set()),
    "no Redis": (Scene.without_redis, {"ExamrelayDown"}),
    "no sweep": (Scene.no_sweep, {"ExamrelaySweepLate"}),
    "nothing moves": (Scene.nothing_moves, {"ExamrelayStalled"}),
    "too slow": (Scene.late_but_moving, {"ExamrelayOldestDue"}),
    "no worker": (Scene.no_worker, {"ExamrelayNoWorker"}),
    "a silent worker": (Scene.silent, {"ExamrelayNoWorker", "ExamrelayProcessSilent"}),
    "a worker died": (Scene.a_worker_died, {"ExamrelayWorkersDie"}),
    "full": (Scene.full, {"ExamrelayReceiverRefuses", "ExamrelayMemory"}),
    "nearly full": (Scene.nearly_full, {"ExamrelayMemory"}),
    "credentials": (Scene.credentials, {"ExamrelayCredentialsRefused"}),
    "gate": (Scene.gate, {"ExamrelayGateClosed"}),
    "dead": (Scene.dead, {"ExamrelayEventsStopped"}),
    "many held": (Scene.many_held, {"ExamrelayEventsStopped", "ExamrelayReasonGrows"}),
    "an old one": (Scene.an_old_one, {"ExamrelayEventsStopped", "ExamrelayOldestWaiting"}),
    "a stray": (Scene.a_stray, {"ExamrelayStrays"}),
    "no queue named": (Scene.misdirected, {"ExamrelayMisdirected"}),
    "503": (lambda scene: scene.answered(503), {"ExamrelayReceiver503"}),
    "401": (lambda scene: scene.answered(401), {"ExamrelaySendersRefused"}),
}


@pytest.mark.parametrize("name", SCENES)
def test_a_failure_fires_its_alerts_and_no_other(pipeline: Pipeline, tmp_path: Path, name: str) -> None:
    act, alerts = SCENES[name]
    scene = Scene(pipeline)
    before = scene.samples()
    act(scene)
    try:
        after = scene.samples()
    finally:
        pipeline.services.redis.config_set("maxmemory", 0)
    assert fired(before, after, tmp_path) == alerts


def test_a_disk_that_fills_fires(pipeline: Pipeline, tmp_path: Path) -> None:
    """The one figure that is not made for real: no test fills a disk."""
    before = Scene(pipeline).samples()
    size = before["examrelay_redis_disk_size_bytes", ()]
    free = ("examrelay_redis_disk_free_bytes", ())
    assert fired(before | {free: size / 2}, before | {free: size / 10}, tmp_path) == {"ExamrelayDisk"}


def test_each_alert_is_fired_here() -> None:
    assert {alert for _, alerts in SCENES.values() for alert in alerts} | {"ExamrelayDisk"} == set(NAMES)


def fired(before: dict[Sample, float], after: dict[Sample, float], folder: Path) -> set[str]:
    """The alerts that fire in the first minutes after a change, or 20 minutes later. An hour of calm comes before."""
    calm, long = 70, 25
    series = []
    for sample in sorted(before.keys() | after.keys()):
        name, labels = sample
        one, other = (f"{side[sample]:.3f}" if sample in side else "_" for side in (before, after))
        inner = ", ".join(f'{label}="{value}"' for label, value in labels)
        if name in WATCHED:
            values = f"{one}x{calm} {other}x{long}"
            series.append({"series": f"{name}{{{inner}}}", "values": values})
    looks = [
        {"eval_time": f"{calm + minutes}m", "alertname": alert, "exp_alerts": []}
        for alert in NAMES
        for minutes in (1, 4, 20)
    ]
    tests = [{"interval": "1m", "input_series": series, "alert_rule_test": looks}]
    path = folder / "test.yml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
    found = set(re.findall(r"alertname: ?(\w+), time", done.stdout + done.stderr))
    assert bool(found) == bool(done.returncode), done.stdout + done.stderr
    return found
