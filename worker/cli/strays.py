"""`examrelay strays`: messages on nobody's books, and queue entries that were no messages: no need to touch Redis."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from kombu.utils.json import loads

from schemas.outcome import Source
from worker import enqueue
from worker.bootstrap import Services
from worker.cli.filters import AsJson
from worker.cli.output import complain, say, show_json, show_table, suggest
from worker.cli.services import open_services, who
from worker.errors import ConfigurationError, LedgerUnavailable, Unacceptable
from worker.ledger import queries, strays

#: Stands for all queue entries that were no messages.
MALFORMED: Final = "malformed"
Id = Annotated[str, typer.Argument(help=f"A stray's id; `{MALFORMED}`: the queue entries that were no messages.")]
Why = Annotated[str, typer.Option(help="Why. Recorded with your name; no personal data.")]


def list_strays(as_json: AsJson = False) -> None:
    """Messages that could be put on nobody's books, the newest first; and how many queue entries were no messages."""
    at, _ = open_services()
    found, malformed = queries.strays(at.redis), queries.malformed(at.redis)
    if as_json:
        acts = strays.acts(at.redis)
        show_json({"strays": [asdict(one) for one in found], "malformed": malformed, "acts": acts})
        return
    columns = ("stray", "why", "at", "bytes", "task")
    show_table(columns, [(one.id, one.why, one.at, one.bytes, one.task) for one in found], wraps="why")
    if malformed:
        say(f"\n{malformed} queue entries were no messages: examrelay strays show {MALFORMED}")
    if found:
        suggest(f"\nwhat it holds: examrelay strays show {found[0].id}")
        suggest(f"on the books after all: examrelay strays receive {found[0].id} --tenant … --source …")


def show(id: Id) -> None:
    """What a stray holds, as it came. It may be personal."""
    at, _ = open_services()
    for content in _contents(at, id):
        sys.stdout.buffer.write(content + b"\n")


def receive(
    id: Annotated[str, typer.Argument(help="A stray's id.")],
    tenant: Annotated[str, typer.Option(help="Whose result it is.")],
    source: Annotated[Source, typer.Option(help="Which exam platform's.")],
    path: Annotated[str, typer.Option(help="Below the source, as Drillster has it; else as it came.")] = "",
) -> None:
    """Put the result that a stray holds on the books, as it should have been sent."""
    at, _ = open_services()
    (content,) = _contents(at, id)
    body, sent_path = _result(content)
    try:
        receipt = enqueue(tenant, source, body, path or sent_path)
    except Unacceptable as refused:
        raise ConfigurationError(f"{id}: {refused}.") from None
    except LedgerUnavailable as error:
        complain(f"not recorded: {error}")
        raise typer.Exit(3) from None
    _remove(at, id, "receive", receipt.id)
    say(f"{id} is {receipt.id} now, {receipt.state}")


def discard(id: Id, why: Why) -> None:
    """Remove a stray, or all queue entries that were no messages, for good."""
    at, _ = open_services()
    count = len(_contents(at, id))
    _remove(at, id, "discard", why)
    say(f"{count} discarded")


def _contents(at: Services, id: str) -> list[bytes]:
    """What is kept under an id. Raises ConfigurationError when there is nothing."""
    one = None if id == MALFORMED else strays.content(at.redis, at.ledger.sealer, id)
    found = strays.malformed(at.redis, at.ledger.sealer) if id == MALFORMED else [one] if one is not None else []
    if not found:
        raise ConfigurationError(f"there is no stray {id}: `examrelay strays list` shows those there are.")
    return found


def _remove(at: Services, id: str, move: str, why: str) -> None:
    line = " ".join((datetime.now(UTC).isoformat(timespec="seconds"), who(), move, id, *why.split()))
    strays.remove(at.redis, None if id == MALFORMED else id, line)


def _result(content: bytes) -> tuple[bytes | str, str]:
    """The body and the path among the arguments that a message was sent with. Raises ConfigurationError."""
    from tasks.receive import bound  # brings the Celery app, which reads the environment when imported

    try:
        args, kwargs = loads(content.decode())[:2]  # type: ignore[no-untyped-call]
        given: dict[str, Any] = bound(args, kwargs)
        body, path = given["body"], given["path"]
    except (ValueError, TypeError, KeyError, Unacceptable):
        body = path = None
    if not isinstance(body, bytes | str):
        raise ConfigurationError(
            "no result can be told in it: `examrelay strays show`, and `examrelay send` what it is."
        )
    return body, path if isinstance(path, str) else ""
