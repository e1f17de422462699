"""`examrelay strays`: messages to `tasks.receive` that could not be recorded, and entries of the queues that are not
Celery messages. With these commands nobody has to touch Redis.
"""

import sys
from typing import Annotated, Final

import typer

from schemas.outcome import Source
from tasks.operator import unrecorded
from tasks.operator.unrecorded import MISDIRECTED
from worker.cli.filters import AsJson, Limit, Why
from worker.cli.output import say, say_malformed, show_json, show_table, suggest
from worker.cli.services import open_services, warnings_to_stderr, who
from worker.errors import ConfigurationError
from worker.ledger import misdirected, queries, strays
from worker.queues import RECEIVE_QUEUE

_ID: Final = f"A stray's id; `{MISDIRECTED}`: all messages to tasks.receive on the queue of that name"
Id = Annotated[str, typer.Argument(help=f"{_ID}; `{strays.EVERY_ENTRY}`: all that is no Celery message.")]


def list_strays(
    limit: Limit = 50,
    after: Annotated[str, typer.Option(help="A place in the list, as the end of the last part names it.")] = "",
    as_json: AsJson = False,
) -> None:
    at, _ = open_services()
    (found, further), malformed = strays.page(at.redis, limit, after), queries.malformed(at.redis)
    if as_json:
        listed = {"strays": [stray._asdict() for stray in found], "after": further, "acts": strays.acts(at.redis)}
        show_json({**listed, "malformed": malformed, "misdirected": misdirected.count(at.redis)})
        return
    show_table(("stray", "why", "at", "bytes", "task"), found)
    say_malformed(malformed)
    for line in misdirected.warning(at.redis):
        say(f"\n{line}")
    if further:
        suggest(f"\nolder ones: examrelay strays list --after {further}")
    if found:
        suggest(f"\nwhat it holds: examrelay strays show {found[0].id}")
        suggest(f"record it: examrelay strays receive {found[0].id} --tenant … --source …")


def show(id: Id) -> None:
    at, _ = open_services()
    for content in unrecorded.contents(at, id):
        say(content.decode(errors="replace")) if sys.stdout.isatty() else sys.stdout.buffer.write(content + b"\n")


def receive(
    id: Annotated[str, typer.Argument(help=f"{_ID}, which name their tenants and sources themselves.")],
    tenant: Annotated[str | None, typer.Option(help="The tenant whose result it is.")] = None,
    source: Annotated[Source | None, typer.Option(help="The exam platform that sent it.")] = None,
    path: Annotated[
        str, typer.Option(help="The part of the URL below the source (Drillster); else the one it was sent with.")
    ] = "",
) -> None:
    at, _ = open_services()
    warnings_to_stderr()
    if id == MISDIRECTED:
        say(f"{unrecorded.redirect(at, who())} messages are on the queue {RECEIVE_QUEUE} now: a worker records them")
        return
    if tenant is None or source is None:
        raise ConfigurationError("say whose result it is, with --tenant, and who sent it, with --source.")
    receipt = unrecorded.receive(at, id, tenant, source, path, who())
    say(f"{id} is {receipt.id} now, {receipt.state}")


def discard(id: Id, why: Why) -> None:
    at, _ = open_services()
    say(f"{unrecorded.discard(at, id, who(), why)} discarded")
