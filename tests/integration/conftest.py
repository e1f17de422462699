"""What integration tests stand on: a real Valkey, the stand-in Rhythm over HTTP, the stages called directly."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox, start
from tests.events import registration
from tests.pipeline import ORG, TENANT, Pipeline, pipeline_at
from worker.ledger.audit.books import books


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


@pytest.fixture
def balanced(client: "redis.Redis") -> Iterator[None]:
    """Whatever a test does, the ledger of tenant `acme` agrees with itself at its end."""
    yield
    assert books(client, TENANT).differences == ()


@pytest.fixture
def open_one(pipeline: Pipeline, balanced: None) -> Pipeline:
    """A pipeline with one open registration."""
    pipeline.rhythm.seed(ORG, [registration()])
    return pipeline


@pytest.fixture
def last_counts(client: "redis.Redis", rhythm: Sandbox, tmp_path: Path, balanced: None) -> Iterator[Pipeline]:
    """As `open_one`, for a tenant of whose results the one received last counts."""
    with pipeline_at(tmp_path, rhythm, tenant='rescore_order = "received"') as built:
        built.rhythm.seed(ORG, [registration()])
        yield built
