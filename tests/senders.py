"""Platforms that send with every kind of credentials, and a receiver that they send to."""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from sandbox.control import Sandbox
from schemas.event import Event
from tests.acceptance.stack import Stack, stack_at
from tests.tenants import ENVIRON
from worker.ledger import queries
from worker.receiver.openapi import OPENAPI

WHSEC = "whsec_" + b64encode(b"0123456789abcdef01234567").decode()
SECRETS = {
    "ACME_DRILLSTER": "dr1llster",
    "ACME_PROV_KEY": "MARKED-k3y",
    "ACME_PROV_SECRET": "MARKED-s3cret",
    "ACME_PROV_NEXT": "MARKED-next",
    "BETA_TOKEN": "b3ta",
    "BETA_HEADER": "h3ader",
    "BETA_WHSEC": WHSEC,
}
#: `acme`: Drillster by basic, Prov by keys in the body (being changed). `beta`: bearer, a header, or a signature.
TABLES = """
[tenants.acme.sources.drillster]
credentials = [ { kind = "basic", user = "drillster", password = "env:ACME_DRILLSTER" } ]
[tenants.acme.sources.prov]
credentials = [
    { kind = "body-keys", keys = { apiKey = "env:ACME_PROV_KEY", secretKey = "env:ACME_PROV_SECRET" } },
    { kind = "body-keys", keys = { apiKey = "env:ACME_PROV_NEXT", secretKey = "env:ACME_PROV_NEXT" } },
]
[tenants.beta]
rhythm = { url = "http://127.0.0.1:1", tenant_id = "beta", credentials = { kind = "api_key", key = "env:ACME_RHYTHM" } }
[tenants.beta.sources.certiverse]
credentials = [
    { kind = "bearer", token = "env:BETA_TOKEN" },
    { kind = "header", name = "X-Api-Key", value = "env:BETA_HEADER" },
    { kind = "standard-webhooks", secret = "env:BETA_WHSEC" },
]
"""
NOWHERE = Sandbox("http://127.0.0.1:1")
CERTIVERSE = ("certiverse", ENVIRON["ACME_CERTIVERSE"])
DRILLSTER = ("drillster", SECRETS["ACME_DRILLSTER"])
READER = {"Authorization": f"Bearer {ENVIRON['ACME_READ']}"}


class ReceiverAt:
    """A running receiver. Every answer is held against the contract."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.client = stack.client
        self.session = requests.Session()

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> requests.Response:
        """One request, its path sent as it stands here."""
        request = requests.Request(method, self.stack.url + "/", data=body, **more)
        prepared = self.session.prepare_request(request)
        prepared.url = self.stack.url + path
        answer = self.session.send(prepared, timeout=20, allow_redirects=False)
        _in_contract(method, path, answer)
        return answer

    def post(self, body: bytes, source: str = "certiverse", **more: Any) -> requests.Response:
        """A delivery for `acme`."""
        return self.call("POST", f"/v1/acme/{source}", body, **({"auth": CERTIVERSE} | more))

    def event(self, id: str, tenant: str = "acme") -> Event | None:
        """The event, if the ledger has it."""
        return queries.event(self.client, tenant, id)

    def accepted(self, tenant: str = "acme") -> int:
        """How many events were ever accepted."""
        return queries.counts(self.client, tenant).get("accepted", 0)

    def path(self, id: str) -> bytes | None:
        """The path that was recorded with an event of `acme`."""
        found: Any = self.client.hget(f"er:acme:event:{id}", "path")
        return found  # type: ignore[no-any-return]

    def metrics(self) -> dict[str, float]:
        """Prometheus' lines by name and labels."""
        lines = self.call("GET", "/metrics").text.splitlines()
        told = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in told}


def _in_contract(method: str, path: str, answer: requests.Response) -> None:
    """A documented answer for its route; for what is no route, a problem."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if answer.status_code >= 400 and method != "HEAD" and not (answer.status_code == 503 and "readyz" in path):
        assert kind == "application/problem+json", (kind, answer.text)
        assert answer.json()["status"] == answer.status_code
    operation = _operation(method, urlsplit(path).path)
    if operation is not None and answer.status_code != 405:
        documented = operation["responses"]
        assert str(answer.status_code) in documented, (method, path, answer.status_code)
        assert kind in _resolved(documented[str(answer.status_code)])["content"], (path, kind)


def _resolved(part: dict[str, Any]) -> dict[str, Any]:
    """A part of the contract, which may stand elsewhere in it."""
    found: Any = OPENAPI
    for name in part.get("$ref", "").split("/")[1:]:
        found = found[name]
    return found if "$ref" in part else part


def _operation(method: str, path: str) -> dict[str, Any] | None:
    asked = path.removesuffix("/").split("/")
    for template, operations in OPENAPI["paths"].items():
        steps = template.split("/")
        if len(steps) == len(asked) and all(
            step == one or step.startswith("{") for step, one in zip(steps, asked, strict=True)
        ):
            found: dict[str, Any] | None = operations.get(method.lower())
            if found:
                return found
    return None


@contextmanager
def receiver_at(folder: Path, **environ: str) -> Iterator[ReceiverAt]:
    """A receiver and its Valkey, as real processes; nothing else runs."""
    with stack_at(folder, NOWHERE, {"more": TABLES}, **SECRETS, **environ) as stack:
        stack.start("web")
        yield ReceiverAt(stack)
