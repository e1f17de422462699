"""What operators see of the tasks in a real Flower."""

import requests

from tests.acceptance.stack import Stack
from tests.events import certiverse
from tests.running import free_port, wait_until


def shown(port: int, state: str, task: str) -> list[str]:
    """The summaries that Flower shows for a task in a state."""
    tasks = requests.get(f"http://127.0.0.1:{port}/api/tasks", timeout=5).json().values()
    return [str(one["exception"]) for one in tasks if one["state"] == state and one["name"] == task]


def test_a_failing_attempt_shows_in_flower_with_its_summary_and_no_personal_data(stack: Stack) -> None:
    port = free_port()
    stack.environ |= {"FLOWER_PORT": str(port), "FLOWER_UNAUTHENTICATED_API": "true"}
    stack.start("flower")
    workers = f"http://127.0.0.1:{port}/api/workers?refresh=true"
    wait_until(lambda: "worker@" in requests.get(workers, timeout=5).text, 30, "Flower knows the worker")
    stack.deliver([b"{ not json"])
    (buried,) = wait_until(lambda: shown(port, "FAILURE", "tasks.process"), 20, "the failure")
    assert "invalid_json 1" in buried
    stack.deliver([certiverse("dlv-1", "reg-nowhere", email="ada@example.org")])
    (retried, *_) = wait_until(lambda: shown(port, "RETRY", "tasks.process"), 20, "the retry")
    assert "registration_not_found 1" in retried
    everything = requests.get(f"http://127.0.0.1:{port}/api/tasks", timeout=5).text
    assert "example.org" not in everything
    assert "dlv-1" not in everything
