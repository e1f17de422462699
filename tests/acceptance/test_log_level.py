"""What a worker's log shows at each level."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.control import Sandbox
from tests.acceptance.stack import stack_at
from tests.events import certiverse, registration
from tests.pipeline import ORG
from tests.running import wait_until


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["batch.applied", "event.settled", "batch.applied", "event.held"]),
        ("info", ["batch.applied", "batch.applied", "event.held"]),
        ("warning", ["event.held"]),
    ],
)
def test_successes_are_shown_from_debug_on_and_libraries_tell_no_more(
    rhythm: Sandbox, tmp_path: Path, level: str, shown: list[str]
) -> None:
    rhythm.seed(ORG, [registration()])
    with stack_at(tmp_path, rhythm, EXAMRELAY_LOG_LEVEL=level) as stack:
        stack.start("web", "worker")
        (id,) = stack.deliver([certiverse()])
        stack.synced(1)
        (held,) = stack.deliver([certiverse("dlv-2", exam="CERT-9")])
        wait_until(lambda: f"{held}" in stack.log("worker").read_text(), 20, "the line")

        def lines() -> list[dict[str, Any]]:
            texts = stack.log("worker").read_text().splitlines()
            return [json.loads(text) for text in texts if text.startswith("{")]

        ours = [line for line in lines() if line["event"].partition(".")[0] in ("batch", "event")]
        assert [line["event"] for line in ours] == shown
        assert {line["tenant"] for line in ours} == {"acme"}
        assert [line["event_id"] for line in ours if "event_id" in line] == ([id, held] if level == "debug" else [held])
        assert {line["level"] for line in lines() if line not in ours} <= {"info", "warning", "error", "critical"}
