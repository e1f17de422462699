"""The command starts fast: it imports only what the command that is called needs."""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / "worker" / "cli"
#: Each costs a twentieth of a second or more.
HEAVY = {"redis", "pydantic_settings", "requests", "structlog", "celery", "kombu", "sentry_sdk", "prometheus_client"}

#: What runs steps that log: all of `tasks` but these.
LOGS = re.compile(
    r"(?m)from tasks(?!\.operator\.(?:listing|steering|contents|overview) |\.operator import (?:contents|steering)$)"
    r"|enqueue"
)


def imported(statement: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {statement}; print(*sys.modules)"],
        text=True,
        capture_output=True,
        check=True,
        cwd=FOLDER.parent.parent,
    )
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_help_imports_no_command() -> None:
    help_of_all = "from worker.cli.app import app; app(['--help'], standalone_mode=False)"
    assert imported(help_of_all) & HEAVY == set()


def test_status_imports_redis_and_the_settings_alone() -> None:
    assert imported("import worker.cli.status") & HEAVY == {"redis", "pydantic_settings"}


def test_commands_that_log_keep_it_off_stdout() -> None:
    modules = [file for file in FOLDER.glob("*.py") if LOGS.search(file.read_text())]
    assert len(modules) >= 6
    for file in modules:
        assert "    warnings_to_stderr()\n" in file.read_text(), file.name
