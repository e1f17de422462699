"""Fixtures for all tests. Nothing starts for a test that does not ask for it."""

import os
import signal
from collections.abc import Iterator

import pytest
import redis
import structlog

from tests.running import Valkey, free_port

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)
_PORT = free_port()
#: Set before worker.celery is imported: it reads the environment once, like every process of ours.
os.environ["REDIS_URL"] = f"redis://127.0.0.1:{_PORT}/0"
os.environ["EXAMRELAY_LOG_FORMAT"] = "json"


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """Logs are as they were at the start: a command that a test calls sets them up for a process of its own."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One real Valkey for all tests that only need one."""
    server = Valkey(_PORT).start()
    yield server
    server.close()


@pytest.fixture
def client(valkey: Valkey) -> Iterator["redis.Redis"]:
    """A client of an empty Valkey."""
    with redis.Redis.from_url(valkey.url) as connected:
        connected.flushall()
        yield connected


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the sweeps have counted (`make sweeps`)."""
    if os.environ.get("EXAMRELAY_FULL") == "1":
        for report in terminalreporter.getreports("passed"):
            for name, value in report.user_properties:
                terminalreporter.write_line(f"{name}: {value}")
