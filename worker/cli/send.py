"""`examrelay send`: posts payload files to the receiver, as their platform would, or records them directly."""

import json
import ssl
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import requests
import typer

from schemas.outcome import Source
from schemas.platform import platform_of
from worker import enqueue
from worker.cli.filters import AsJson
from worker.cli.output import end, show_json, show_table
from worker.cli.services import join, warnings_to_stderr
from worker.errors import ConfigurationError, LedgerUnavailable, Unacceptable, Unchecked
from worker.receiver.credentials import present
from worker.settings import Settings, load_settings
from worker.sockets import url_of
from worker.tenants import SourceRules

_SECONDS: Final = 30
_COLUMNS: Final = ("file", "status", "id", "state", "duplicate", "detail")


def send(
    tenant: Annotated[str, typer.Option(help="The tenant whose results these are.")],
    files: Annotated[list[Path] | None, typer.Argument(help="Payloads, one a file; - is standard input.")] = None,
    source: Annotated[Source | None, typer.Option(help="The exam platform that they come from.")] = None,
    sample: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of files: a result of a person who does not exist.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The receiver; else that of `examrelay up`, else port PORT of this machine.")
    ] = None,
    path: Annotated[str, typer.Option(help="The part of the URL below the source. Drillster: eventType/eventId.")] = "",
    direct: Annotated[
        bool, typer.Option("--direct", help="Record directly in the ledger, without the receiver.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    warnings_to_stderr()
    running = join()
    settings = load_settings()
    bodies = {str(file): _read(file) for file in files or ()}
    if sample:
        bodies[sample] = _sample(sample)
        source = source or Source(sample.partition("_")[0])
    if not bodies or source is None:
        raise ConfigurationError("send needs files and --source, or --sample NAME.")
    rules = _rules(settings, tenant, source)
    if direct:
        answer = partial(_record, tenant, source, path)
    else:
        receiver = (url or (running.receiver if running else url_of(settings.host, settings.port))).rstrip("/")
        method, route = platform_of(source).method(path), f"/v1/{tenant}/{source}/{path}".rstrip("/")
        answer = partial(_post, method, receiver + route, rules)
    answers = [{"file": file, **answer(body)} for file, body in bodies.items()]
    if as_json:
        show_json(answers)
    else:
        show_table(_COLUMNS, [[each.get(column) for column in _COLUMNS] for each in answers])
    end(all(each["status"] == requests.codes.accepted for each in answers))


def _sample(name: str) -> bytes:
    """A result of a person made up now, by the stand-in's process: production imports none of it."""
    made = subprocess.run([sys.executable, "-m", "sandbox.scenarios", name], capture_output=True, check=False)
    if made.returncode:
        raise ConfigurationError(made.stderr.decode().strip())
    return made.stdout


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
        raise Unchecked(f"not recorded: {error}") from None
    return {"status": 202, **receipt.model_dump(mode="json")}


def _post(method: str, url: str, rules: SourceRules, body: bytes) -> dict[str, Any]:
    """The receiver's answer. Raises Unchecked when nothing answers there, or not as the receiver does."""
    try:
        headers, body = present(rules.credentials[0], body)
    except ValueError:
        raise ConfigurationError("the credentials go into the body or sign it, and it is no JSON object.") from None
    headers["Content-Type"] = "application/json"
    try:
        with _session() as session:
            answer = session.request(method, url, data=body, headers=headers, timeout=_SECONDS, allow_redirects=False)
        return {**json.loads(answer.content or b"{}"), "status": answer.status_code}
    except (requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL):
        raise ConfigurationError(f"{url}: is not the address of a receiver, such as http://127.0.0.1:8000") from None
    except (requests.RequestException, ValueError) as error:
        raise Unchecked(
            f"the receiver does not answer at {url} ({error}). Start `examrelay up`, or give --url."
        ) from None


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxy to this machine's own receiver; no netrc in the place of our credentials
    session.verify = ssl.get_default_verify_paths().cafile or True  # the system's CAs, among them an organisation's own
    return session
