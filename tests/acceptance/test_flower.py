"""What operators see of the tasks in a real Flower."""

from typing import Any

import pytest
import requests

from tests.acceptance.stack import Stack
from tests.events import certiverse, registration
from tests.pipeline import ORG
from tests.running import free_port, wait_until

WHO = ("operator", "s3cret")


class Flower:
    """Its page of tasks, as a signed-in person sees it."""

    def __init__(self, stack: Stack) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        stack.environ |= {"FLOWER_PORT": str(port), "FLOWER_BASIC_AUTH": ":".join(WHO)}
        stack.start("flower")
        wait_until(lambda: "worker@" in self.get("/api/workers?refresh=true"), 30, "Flower knows the worker")
        wait_until(lambda: "sweeper@" in self.get("/api/workers?refresh=true"), 30, "Flower knows the sweeper")

    def get(self, path: str) -> str:
        return requests.get(self.url + path, auth=WHO, timeout=5).text

    def rows(self, state: str = "", task: str = "tasks.process") -> list[dict[str, Any]]:
        """The rows of the table; of each, what its columns show."""
        asked = "/tasks/datatable?draw=1&start=0&length=1000&order[0][column]=0&columns[0][data]=name&search[value]="
        rows: list[dict[str, Any]] = requests.get(self.url + asked, auth=WHO, timeout=5).json()["data"]
        return [row for row in rows if row["name"] == task and state in ("", row["state"])]


@pytest.fixture
def flower(stack: Stack) -> Flower:
    return Flower(stack)


def test_a_row_shows_the_tenant_and_what_became_of_its_events(stack: Stack, flower: Flower) -> None:
    stack.rhythm.seed(ORG, [registration()])
    page = flower.get("/tasks")
    for column in ("args", "state", "result", "exception"):
        assert f'<th data-column="{column}">' in page
    assert '<th data-column="uuid">' not in page
    stack.deliver([certiverse()])
    (done, *_) = wait_until(lambda: flower.rows("SUCCESS"), 20, "the success")
    assert (done["args"], done["result"]) == ("['acme']", "'1 synced'")
    stack.deliver([b"{ not json"])
    (buried,) = wait_until(lambda: flower.rows("FAILURE"), 20, "the failure")
    assert (buried["args"], buried["exception"]) == ("['acme']", "AttemptFailed('1 dead; invalid_json 1')")
    stack.deliver([certiverse("dlv-2", "reg-nowhere", email="ben@example.org", student="stu-2")])
    (retried, *_) = wait_until(lambda: flower.rows("RETRY"), 20, "the retry")
    assert "registration_not_found 1" in retried["exception"]
    everything = flower.get("/api/tasks")
    assert "example.org" not in everything
    assert "dlv-1" not in everything


def test_it_is_for_those_with_credentials(flower: Flower) -> None:
    for path in ("/tasks", "/api/tasks", "/api/workers", "/tasks/datatable"):
        assert requests.get(flower.url + path, timeout=5).status_code == 401
        assert requests.get(flower.url + path, auth=("operator", "wrong"), timeout=5).status_code == 401


def test_a_sweep_has_a_row_when_it_did_something_or_failed(stack: Stack, flower: Flower) -> None:
    before = int(stack.client.hget("er:sweep", "at") or 0)

    def swept() -> bool:
        nonlocal before
        now = int(stack.client.hget("er:sweep", "at") or 0)
        last, before = before, now
        return last != now

    for _ in range(3):
        wait_until(swept, 20, "a sweep")
    assert flower.rows(task="tasks.sweep") == []
    stack.client.zadd("er:acme:due:sync", {"evt_gone": 0})
    stack.client.sadd("er:tenants", "acme")
    (hinted, *_) = wait_until(lambda: flower.rows(task="tasks.sweep"), 30, "the sweep that hinted")
    assert (hinted["state"], hinted["result"]) == ("SUCCESS", "'1 hinted'")
    stack.client.delete("er:tenants")
    stack.client.set("er:tenants", "no set")
    (failed, *_) = wait_until(lambda: flower.rows("FAILURE", "tasks.sweep"), 30, "the sweep that failed")
    assert failed["exception"] == "AttemptFailed('not finished: ResponseError')"
