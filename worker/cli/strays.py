"""`examrelay strays`: messages to `tasks.receive` that could not be recorded, and entries of the queues that are not
Celery messages. With these commands nobody has to touch Redis.
"""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from kombu.utils.json import loads

from schemas.outcome import Source
from tasks.receive import bound
from worker import enqueue
from worker.bootstrap import Services
from worker.cli.filters import AsJson, Why
from worker.cli.output import say, say_malformed, show_json, show_table, suggest
from worker.cli.services import open_services, warnings_to_stderr, who
from worker.errors import ConfigurationError, LedgerUnavailable, Unacceptable, Unchecked
from worker.ledger import queries, strays

#: Stands for all queue entries that are not Celery messages.
MALFORMED: Final = "malformed"
Id = Annotated[str, typer.Argument(help=f"A stray's id; `{MALFORMED}`: all queue entries that are not messages.")]


def list_strays(as_json: AsJson = False) -> None:
    at, _ = open_services()
    found, malformed = queries.strays(at.redis), queries.malformed(at.redis)
    if as_json:
        acts = strays.acts(at.redis)
        show_json({"strays": [asdict(stray) for stray in found], "malformed": malformed, "acts": acts})
        return
    columns = ("stray", "why", "at", "bytes", "task")
    show_table(columns, [(stray.id, stray.why, stray.at, stray.bytes, stray.task) for stray in found], wraps="why")
    say_malformed(malformed)
    if found:
        suggest(f"\nwhat it holds: examrelay strays show {found[0].id}")
        suggest(f"record it: examrelay strays receive {found[0].id} --tenant … --source …")


def show(id: Id) -> None:
    at, _ = open_services()
    for content in _contents(at, id):
        sys.stdout.buffer.write(content + b"\n")


def receive(
    id: Annotated[str, typer.Argument(help="A stray's id.")],
    tenant: Annotated[str, typer.Option(help="The tenant whose result it is.")],
    source: Annotated[Source, typer.Option(help="The exam platform that sent it.")],
    path: Annotated[
        str, typer.Option(help="The part of the URL below the source (Drillster); else the one it was sent with.")
    ] = "",
) -> None:
    at, _ = open_services()
    warnings_to_stderr()
    (content,) = _contents(at, id)
    body, sent_path = _result(content)
    try:
        receipt = enqueue(tenant, source, body, path or sent_path)
    except Unacceptable as refused:
        raise ConfigurationError(f"{id}: {refused}.") from None
    except LedgerUnavailable as error:
        raise Unchecked(f"not recorded: {error}") from None
    _remove(at, id, "receive", receipt.id)
    say(f"{id} is {receipt.id} now, {receipt.state}")


def discard(id: Id, why: Why) -> None:
    at, _ = open_services()
    count = len(_contents(at, id))
    _remove(at, id, "discard", why)
    say(f"{count} discarded")


def _contents(at: Services, id: str) -> list[bytes]:
    """What is kept under an id. Raises ConfigurationError when there is nothing."""
    if id == MALFORMED:
        contents = strays.malformed(at.redis, at.ledger.sealer)
    else:
        content = strays.content(at.redis, at.ledger.sealer, id)
        contents = [] if content is None else [content]
    if not contents:
        raise ConfigurationError(f"there is no stray {id}: `examrelay strays list` shows the strays.")
    return contents


def _remove(at: Services, id: str, move: str, why: str) -> None:
    line = " ".join((datetime.now(UTC).isoformat(timespec="seconds"), who(), move, id, *why.split()))
    strays.remove(at.redis, None if id == MALFORMED else id, line)


def _result(content: bytes) -> tuple[bytes | str, str]:
    """The body and the path among the arguments that a message was sent with. Raises ConfigurationError."""
    try:
        args, kwargs = loads(content.decode())[:2]
        given: dict[str, Any] = bound(args, kwargs)
        body, path = given["body"], given["path"]
    except (ValueError, TypeError, KeyError, Unacceptable):
        body = path = None
    if not isinstance(body, bytes | str):
        raise ConfigurationError(
            "it holds no result that can be read: look with `examrelay strays show`, then post the result with "
            "`examrelay send`."
        )
    return body, path if isinstance(path, str) else ""
