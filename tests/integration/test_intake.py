"""`worker.enqueue`: the same as the receiver, from any thread and after a fork."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

import worker
from schemas.event import Receipt
from tests.events import certiverse
from tests.intakes import an_intake, own_environ
from tests.running import ROOT, Valkey
from tests.senders import SECRETS, ReceiverAt, receiver_at
from worker.ledger import queries
from worker.receiver.intake import Intake

#: Hints of this process go there, whichever Valkey a test records in.
pytestmark = pytest.mark.usefixtures("client")
LARGE = b"x" * (2 * 2**20 + 1)


@pytest.fixture
def environ(valkey: Valkey, client: "redis.Redis", tmp_path: Path) -> dict[str, str]:
    """What a process of somebody's own needs."""
    return own_environ(valkey, tmp_path)


@pytest.fixture
def intake(valkey: Valkey, client: "redis.Redis", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Intake]:
    """A way in, on an empty Valkey."""
    made = an_intake(valkey, tmp_path, monkeypatch)
    yield made
    made.close()


def run(script: str, environ: dict[str, str], *options: str) -> str:
    """A process of its own that has nothing of ours but the path. Gives what it printed."""
    done = subprocess.run(
        [sys.executable, *options, "-c", script],
        env=os.environ | environ | {"PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_delivery_is_the_same_event_by_the_receiver_and_by_enqueue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"apiKey": SECRETS["ACME_PROV_KEY"], "secretKey": SECRETS["ACME_PROV_SECRET"]}
    prov = json.dumps({"candidateId": "ü", **keys}, ensure_ascii=False)
    with receiver_at(tmp_path) as receiver:
        intake = an_intake(receiver.stack.valkey, tmp_path, monkeypatch)
        sent = [
            (intake.accept("acme", "certiverse", certiverse()), receiver.post(certiverse())),
            (intake.accept("acme", "prov", prov), receiver.post(prov.encode(), "prov", auth=None)),
            (intake.accept("acme", "certiverse", LARGE), receiver.post(LARGE)),
            (intake.accept("acme", "certiverse", ""), receiver.post(b"")),
            (intake.accept("acme", "drillster", "{}", "/T/a%2Fb?x=1"), _put(receiver, "T/a%2Fb")),
            (intake.accept("acme", "drillster", "{}", "T/ü b"), _put(receiver, "T/%C3%BC%20b")),
        ]
        intake.close()
        for ours, theirs in sent:
            assert theirs.json() == ours.model_dump(mode="json") | {"duplicate": True}, theirs.text
        assert receiver.accepted() == len(sent)
        kept = b"".join(receiver.client.dump(key) or b"" for key in receiver.client.keys("*"))
        assert b"MARKED" not in kept


def _put(receiver: ReceiverAt, below: str):  # type: ignore[no-untyped-def]
    return receiver.call("PUT", f"/v1/acme/drillster/{below}", b"{}", auth=("drillster", SECRETS["ACME_DRILLSTER"]))


def test_importing_worker_loads_nothing_and_the_first_call_hints(
    environ: dict[str, str], client: "redis.Redis"
) -> None:
    script = """
import sys, worker
ours = {name.partition(".")[0] for name in sys.modules}
assert not ours & {"redis", "celery", "pydantic", "schemas", "structlog"}, ours
print(worker.enqueue("acme", "certiverse", "{}").model_dump_json())
print(worker.enqueue("acme", "certiverse", b"{}").model_dump_json())
"""
    first, again = (Receipt.model_validate_json(line) for line in run(script, environ, "-X", "dev").splitlines())
    assert (first.state, first.duplicate, again) == ("received", False, first.model_copy(update={"duplicate": True}))
    (hint,) = client.lrange("examrelay", 0, -1)
    assert json.loads(hint)["headers"]["task"] == "tasks.process"


def test_threads_before_and_after_a_fork_lose_and_double_nothing(
    environ: dict[str, str], client: "redis.Redis"
) -> None:
    script = """
import os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from worker import enqueue
from worker.errors import LedgerUnavailable

def one(body):
    while True:
        try:
            return enqueue("acme", "certiverse", body).id
        except LedgerUnavailable:  # a busy machine: again, as a sender would
            pass

def many(who):
    with ThreadPoolExecutor(20) as threads:
        assert len(set(threads.map(lambda n: one(f"{who} {n // 2}"), range(200)))) == 100

many("parent")
busy = threading.Thread(target=many, args=["meanwhile"])
busy.start()
children = []
for name in ("one", "two"):
    child = os.fork()
    if not child:
        many(name)
        sys.exit(0)  # with all that a process does at its end
    children.append(child)
busy.join()
many("after")
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
"""
    # Python 3.12 and newer warn of what is tried here on purpose: a fork beside a running thread.
    run(script, environ, "-W", "ignore:This process:DeprecationWarning")
    assert queries.counts(client, "acme")["accepted"] == 5 * 100


def test_somebody_elses_celery_app_and_its_transport_stay_as_they_were(environ: dict[str, str]) -> None:
    script = """
import celery, time, worker
from kombu.transport import TRANSPORT_ALIASES
theirs = celery.Celery("theirs", broker="memory://")
before = dict(TRANSPORT_ALIASES)

@celery.shared_task
def task(): ...

worker.enqueue("acme", "certiverse", "{}")
assert celery.current_app._get_current_object() is theirs, celery.current_app
assert task.app is theirs
assert dict(TRANSPORT_ALIASES) == before
"""
    run(script, environ)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nobody", "certiverse", "MARKED"), "there is no such tenant; there are: acme, beta"),
        ((None, "certiverse", "MARKED"), "there is no such tenant"),
        ((["MARKED"], "certiverse", ""), "there is no such tenant"),
        (("acme", "MARKED", ""), "this tenant has no such source; it has: certiverse, drillster, prov"),
        (("beta", "drillster", "MARKED"), "this tenant has no such source; it has: certiverse"),
        (("acme", {"MARKED": 1}, ""), "this tenant has no such source"),
        (("acme", "certiverse", {"MARKED": 1}), "the body is neither bytes nor text"),
        (("acme", "certiverse", None), "the body is neither bytes nor text"),
        (("acme", "certiverse", "MARKED \ud800"), "UTF-8"),
        (("acme", "drillster", "{}", 5), "the path is not text"),
        (("acme", "drillster", "{}", "MARKED\udfff"), "no URL can hold"),
    ],
)
def test_what_cannot_be_accepted_is_a_value_error_that_quotes_nothing(
    intake: Intake, client: "redis.Redis", arguments: tuple[str, str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        intake.accept(*arguments)
    assert "MARKED" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert not client.keys("er:*")


def test_bytes_in_any_form_are_one_body(intake: Intake) -> None:
    forms = [b"{}", "{}", bytearray(b"{}"), memoryview(b"{}")]
    assert len({intake.accept("acme", "certiverse", form).id for form in forms}) == 1  # type: ignore[arg-type]


def test_the_first_call_checks_and_later_ones_do_not(intake: Intake, client: "redis.Redis") -> None:
    for number in range(20):
        intake.accept("acme", "certiverse", str(number))
    assert client.info("commandstats")["cmdstat_config|get"]["calls"] >= 1
    before = client.info("commandstats")["cmdstat_config|get"]["calls"]
    for number in range(20):
        intake.accept("acme", "certiverse", str(number))
    assert client.info("commandstats")["cmdstat_config|get"]["calls"] == before


def test_enqueue_without_a_configuration_says_what_is_missing() -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_URL", "EXAMRELAY"))}
    script = "import worker; worker.enqueue('acme', 'certiverse', '{}')"
    done = subprocess.run(
        [sys.executable, "-c", script], env=bare | {"PYTHONPATH": str(ROOT)}, cwd="/", capture_output=True, text=True
    )
    assert "ConfigurationError: REDIS_URL is not set" in done.stderr
    assert worker.__all__ == ["enqueue"]
