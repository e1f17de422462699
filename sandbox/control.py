"""A typed client of the control face, and a way to run the stand-in as a real process: for tests, demo and bench.

Must not import the stand-in itself: it talks to it over HTTP only.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import quote

import requests

Json = dict[str, Any]
READY_SECONDS = 15.0
#: What the stand-in accepts unless told otherwise (`options.py`).
API_KEY = "sandbox-key"
CLIENT_ID, CLIENT_SECRET = "sandbox-client", "sandbox-secret"


class Sandbox:
    """A running stand-in; `url` is what a tenant's `rhythm.url` is set to."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def seed(self, tenant: str, registrations: Iterable[Json]) -> None:
        """Members not given are filled in; a registration already there is replaced, its history gone."""
        self._call("PUT", "registrations", {tenant: list(registrations)})

    def registration(self, tenant: str, registration_id: str) -> Json | None:
        """As it truly is now; None once deleted."""
        return cast("Json | None", self.record(tenant, registration_id)["registration"])

    def registrations(self, tenant: str) -> dict[str, Json]:
        return cast("dict[str, Json]", self._call("GET", f"registrations/{quote(tenant, safe='')}"))

    def history(self, tenant: str, registration_id: str) -> list[Json]:
        """Every write: `{at, by, operation, sys_version, changes: {member: [old, new]}}`, oldest first."""
        return cast("list[Json]", self.record(tenant, registration_id)["history"])

    def record(self, tenant: str, registration_id: str) -> Json:
        """`{registration, history, letters}`."""
        return cast("Json", self._call("GET", _path(tenant, registration_id)))

    def letters(self) -> list[Json]:
        return cast("list[Json]", self._call("GET", "letters"))

    def requests(self, after: int = 0) -> list[Json]:
        """The log of calls with `n` over `after`; those under way have `duration_ms` None."""
        return cast("list[Json]", self._call("GET", f"requests?after={after}"))

    def counts(self) -> Json:
        """`calls operations writes letters tokens by_kind by_status`, exact however long the run."""
        return cast("Json", self._call("GET", "counts"))

    def edit(self, tenant: str, registration_id: str, **fields: object) -> Json:
        """A registrar's edit; None removes a member."""
        return cast("Json", self._call("PATCH", _path(tenant, registration_id), fields))

    def options(self, **changes: object) -> Json:
        """Change these options and keep the others; gives all of them. The rate limit starts full."""
        return cast("Json", self._call("PUT", "options", changes))

    def fault(self, action: str, *, times: int | None = 1, **settings: object) -> None:
        """Script one failure: `kind ids methods tenant` say which calls, the rest are members of `faults.Fault`."""
        match = {name: settings.pop(name) for name in ("kind", "ids", "methods", "tenant") if name in settings}
        self._call("POST", "faults", [{"match": match, "action": action, "times": times, **settings}])

    def faults(self) -> list[Json]:
        """The scripts in force, with `remaining` and `hits`."""
        return cast("list[Json]", self._call("GET", "faults"))

    def clear_faults(self) -> None:
        self._call("DELETE", "faults")

    def expire_tokens(self) -> None:
        self._call("DELETE", "tokens")

    def reset(self) -> None:
        """Forget everything: registrations, options, faults, tokens, log."""
        self._call("POST", "reset")

    def _call(self, method: str, path: str, body: object = None) -> object:
        response = self._session.request(method, f"{self.url}/_sandbox/{path}", json=body, timeout=30)
        if not response.ok:
            raise ValueError(f"sandbox: {response.status_code} {response.text}")
        return response.json()


def _path(tenant: str, registration_id: str) -> str:
    return f"registrations/{quote(tenant, safe='')}/{quote(registration_id, safe='')}"


@contextmanager
def start(port: int = 0, *arguments: str) -> Iterator[Sandbox]:
    """Run `python -m sandbox` until the block ends; TimeoutError when it is not ready in time."""
    paths = [str(Path(__file__).resolve().parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "sandbox", "--port", str(port), *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            with Sandbox(_url(process)) as sandbox:
                yield sandbox
        finally:
            process.terminate()


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], READY_SECONDS)[0]:
        raise TimeoutError("the sandbox was not ready in time")
    line = process.stdout.readline()
    if "ready on " not in line:
        raise RuntimeError(f"the sandbox did not start: {line!r}")
    return line.split("ready on ")[1].strip()
