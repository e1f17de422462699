"""Ways into a ledger, as a process of somebody's own has them."""

from pathlib import Path

import pytest

from tests.running import Valkey
from tests.senders import SECRETS, TABLES
from tests.tenants import ENVIRON, write_tenants
from worker.receiver.intake import Intake
from worker.settings import Settings


def own_environ(valkey: Valkey, folder: Path) -> dict[str, str]:
    config = write_tenants(folder, "http://127.0.0.1:1", more=TABLES)
    return ENVIRON | SECRETS | {"REDIS_URL": valkey.url, "EXAMRELAY_CONFIG": str(config)}


def an_intake(valkey: Valkey, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> Intake:
    for name, value in (own_environ(valkey, folder) | more).items():
        monkeypatch.setenv(name, value)
    return Intake(Settings())
