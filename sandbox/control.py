"""A client of the stand-in's acts (`world.py`), and a way to run it as a real process: for tests, demo and bench."""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import quote

import requests

Json = dict[str, Any]
#: The key that the stand-in accepts by default.
API_KEY = "sandbox-key"


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
        """Each needs an id, what else it must have is filled in; one already there is replaced, its history gone."""
        self._act("seed", tenant, registrations=list(registrations))

    def registrations(self, tenant: str) -> Any:
        """By id, as they truly are now."""
        return self._act("registrations", tenant)

    def registration(self, tenant: str, registration_id: str) -> Any:
        """None once deleted."""
        return self.record(tenant, registration_id)["registration"]

    def history(self, tenant: str, registration_id: str) -> Any:
        """Every write: `{at, by, operation, sys_version, changes: {member: [old, new]}}`, oldest first."""
        return self.record(tenant, registration_id)["history"]

    def record(self, tenant: str, registration_id: str) -> Any:
        """`{registration, history, letters}`."""
        return self._act("record", tenant, registration_id)

    def letters(self) -> Any:
        """`{tenant, registration, status, at, sys_version}` of each, oldest first."""
        return self._act("letters")

    def requests(self, after: int = 0) -> Any:
        """The log of calls with `n` over `after`; those under way have `ended_at` None."""
        return self._act("requests", after=after)

    def counts(self) -> Any:
        """`calls writes letters tokens by_kind by_status`, exact however long the run."""
        return self._act("counts")

    def edit(self, tenant: str, registration_id: str, **fields: object) -> Any:
        """A registrar's edit: nothing is checked, a lock does not stop it; None removes a member."""
        return self._act("edit", tenant, registration_id, fields=fields)

    def options(self, **changes: object) -> Any:
        """Change these options and keep the others; gives all of them. The rate limit starts full."""
        return self._act("options", **changes)

    def fault(self, action: str, **settings: object) -> None:
        """Script one failure; `settings` are members of `options.Fault`."""
        self._act("fault", action=action, **settings)

    def faults(self, *instead: Json) -> None:
        """Replace all scripted failures by these, at one moment."""
        self._act("faults", instead=instead)

    def clear_faults(self) -> None:
        """Script none any more."""
        self.faults()

    def expire_tokens(self) -> None:
        self._act("expire_tokens")

    def reset(self) -> None:
        """Forget everything: registrations, options, faults, tokens, log."""
        self._act("reset")

    def _act(self, name: str, /, *places: str, **named: object) -> Any:
        path = "/".join(quote(part, safe="") for part in (name, *places))
        response = self._session.post(f"{self.url}/_sandbox/{path}", json=named, timeout=30)
        if not response.ok:
            raise ValueError(f"sandbox: {response.status_code} {response.text}")
        return response.json()


@contextmanager
def start() -> Iterator[Sandbox]:
    """Run `python -m sandbox` until the block ends."""
    with subprocess.Popen([sys.executable, "-m", "sandbox"], stdout=subprocess.PIPE, text=True) as process:
        try:
            with Sandbox(_url(process)) as sandbox:
                yield sandbox
        finally:
            process.terminate()


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if "ready on " not in line:
        raise RuntimeError(f"the sandbox did not start: {line!r}")
    return line.split("ready on ")[1].strip()
