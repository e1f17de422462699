"""The stand-in for acceptance tests. Each test starts the other processes that it needs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.control import Sandbox, start
from tests.acceptance.stack import Stack, stack_at


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    """One stand-in for all tests."""
    with start() as sandbox:
        yield sandbox


@pytest.fixture
def rhythm(running_sandbox: Sandbox) -> Sandbox:
    """The stand-in, emptied."""
    running_sandbox.reset()
    return running_sandbox


@pytest.fixture
def stack(rhythm: Sandbox, tmp_path: Path) -> Iterator[Stack]:
    """All processes, with leases short enough for a test to wait for."""
    with stack_at(tmp_path, rhythm, EXAMRELAY_LEASE_SECONDS="5", EXAMRELAY_SWEEP_SECONDS="1") as running:
        running.start("web", "worker", "sweeper", "beat")
        yield running
