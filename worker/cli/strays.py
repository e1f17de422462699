"""`examrelay strays`: messages to `tasks.receive` that could not be recorded, and entries of the queues that are not
Celery messages. With these commands nobody has to touch Redis.
"""

import sys
from typing import Annotated

import typer

from schemas.outcome import Source
from tasks.operator import unrecorded
from worker.cli.filters import AsJson, Limit, Why
from worker.cli.output import say, say_malformed, show_json, show_table, suggest
from worker.cli.services import open_services, warnings_to_stderr, who
from worker.ledger import queries, strays

Id = Annotated[str, typer.Argument(help=f"A stray's id; `{strays.EVERY_ENTRY}`: all that is no Celery message.")]


def list_strays(
    limit: Limit = 50,
    after: Annotated[str, typer.Option(help="A place in the list, as the end of the last part names it.")] = "",
    as_json: AsJson = False,
) -> None:
    at, _ = open_services()
    (found, further), malformed = strays.page(at.redis, limit, after), queries.malformed(at.redis)
    if as_json:
        listed, acts = [stray._asdict() for stray in found], strays.acts(at.redis)
        show_json({"strays": listed, "after": further, "malformed": malformed, "acts": acts})
        return
    show_table(("stray", "why", "at", "bytes", "task"), found)
    say_malformed(malformed)
    if further:
        suggest(f"\nolder ones: examrelay strays list --after {further}")
    if found:
        suggest(f"\nwhat it holds: examrelay strays show {found[0].id}")
        suggest(f"record it: examrelay strays receive {found[0].id} --tenant … --source …")


def show(id: Id) -> None:
    at, _ = open_services()
    for content in unrecorded.contents(at, id):
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
    receipt = unrecorded.receive(at, id, tenant, source, path, who())
    say(f"{id} is {receipt.id} now, {receipt.state}")


def discard(id: Id, why: Why) -> None:
    at, _ = open_services()
    say(f"{unrecorded.discard(at, id, who(), why)} discarded")
