"""`examrelay send`: posts payload files to the receiver, as their platform would, or records them directly."""

import http.client
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from schemas.outcome import Source
from worker import enqueue
from worker.cli.output import show_json, show_table
from worker.errors import ConfigurationError, LedgerUnavailable, Unacceptable
from worker.local.running import Running
from worker.receiver.credentials import present
from worker.settings import Settings
from worker.tenants import SourceRules

_SECONDS = 30


class ReceiverAway(Exception):
    """Nobody answers there, or not as the receiver does. The message says what to do."""


@dataclass(frozen=True)
class Way:
    """How payloads get there: a URL that was given, the `up` beside us, or past the receiver."""

    url: str | None
    beside: Running | None
    direct: bool


def send(
    settings: Settings, files: list[Path], tenant: str, source: Source, path: str, way: Way, as_json: bool
) -> bool:
    """Send each file and show what was answered. Returns whether all were accepted. Raises ReceiverAway."""
    rules = _rules(settings, tenant, source)
    bodies = {str(file): _read(file) for file in files}
    if way.direct:
        answers = [_record(tenant, source, path, body) for body in bodies.values()]
    else:
        url = way.url or (way.beside.receiver if way.beside else f"http://127.0.0.1:{settings.port}")
        answers = [_post(url, f"/v1/{tenant}/{source}/{path}".rstrip("/"), rules, body) for body in bodies.values()]
    rows = [{"file": file, **answer} for file, answer in zip(bodies, answers, strict=True)]
    if as_json:
        show_json(rows)
    else:
        columns = ["file", "status", "id", "state", "duplicate", "detail"]
        show_table(columns, [[row.get(column) for column in columns] for row in rows])
    return all(row["status"] == 202 for row in rows)


def _rules(settings: Settings, tenant: str, source: Source) -> SourceRules:
    try:
        return settings.tenants.rules(tenant, source)
    except Unacceptable as error:
        raise ConfigurationError(f"{settings.config}: {error}.") from None


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read ({error.strerror}).") from None


def _record(tenant: str, source: Source, path: str, body: bytes) -> dict[str, Any]:
    try:
        receipt = enqueue(tenant, source, body, path)
    except LedgerUnavailable as error:
        raise ReceiverAway(f"not recorded: {error}") from None
    return {"status": 202, **receipt.model_dump(mode="json")}


def _post(url: str, path: str, rules: SourceRules, body: bytes) -> dict[str, Any]:
    where = urlsplit(url)
    if where.scheme not in ("http", "https") or not where.hostname:
        raise ConfigurationError(f"--url {url}: is no address of the receiver, such as http://127.0.0.1:8000")
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    connection = kind(where.hostname, where.port, timeout=_SECONDS)
    try:
        headers, body = present(rules.credentials[0], body)
    except ValueError:
        raise ConfigurationError("the credentials go into the body or sign it, and it is no JSON object.") from None
    headers["Content-Type"] = "application/json"
    method = "PUT" if path.count("/") > 4 else "POST"  # Drillster puts an event under its id
    try:
        connection.request(method, where.path.rstrip("/") + path, body, headers)
        response = connection.getresponse()
        answer = {**json.loads(response.read() or b"{}"), "status": response.status}
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ReceiverAway(
            f"the receiver at {url} does not answer ({error}). Start `examrelay up`, or give --url."
        ) from None
    finally:
        connection.close()
    return answer
