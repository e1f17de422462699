"""What integration tests stand on: a real Valkey, the stand-in Rhythm over HTTP, the stages called directly."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox, start
from tests.pipeline import Pipeline, pipeline_at


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    """One stand-in for all tests."""
    with start() as sandbox:
        yield sandbox


@pytest.fixture
def rhythm(running_sandbox: Sandbox) -> Sandbox:
    """A stand-in with nothing in it."""
    running_sandbox.reset()
    return running_sandbox


@pytest.fixture
def pipeline(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path) -> Iterator[Pipeline]:
    """The ledger and the stages, for tenant `acme`."""
    with pipeline_at(tmp_path, rhythm) as built:
        yield built
