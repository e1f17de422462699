"""Commands that do the processes' work: `up` runs all of them, `console` the pages alone, `sweep` makes one pass."""

from typing import Annotated

import typer

from worker.cli.output import say
from worker.cli.services import join, open_services, warnings_to_stderr, who
from worker.ledger import sessions
from worker.settings import load_settings


def up(
    sandbox: Annotated[bool, typer.Option("--sandbox", help="With a stand-in Rhythm and a tenant, acme.")] = False,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The receiver's port; 0: a free one.")] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Write the processes' output to their log files only.")
    ] = False,
) -> None:
    from worker.local.up import up as run_all  # only this command needs it

    raise typer.Exit(run_all(sandbox=sandbox, port=port, quiet=quiet))


def console(
    make_hash: Annotated[
        bool, typer.Option("--hash", help="Ask for a password, and print its hash for the tenants file.")
    ] = False,
    sign_in: Annotated[
        bool, typer.Option("--sign-in", help="Print a name and a password to sign in with once, within an hour.")
    ] = False,
) -> None:
    if make_hash:
        from worker.console.signing_in import HASHER  # the others need no hashing

        say(HASHER.hash(typer.prompt("Password", hide_input=True, confirmation_prompt=True)))
    elif sign_in:
        at, _ = open_services()
        name = who().removeprefix("operator:").replace(" ", "-")  # `uid 0` where there is no USER
        say(f"name {name}\npassword {sessions.invite(at.redis, name)}")
    else:
        from worker.console.app import serve  # brings Celery and all the pages

        join()
        serve(load_settings())


def sweep() -> None:
    from tasks.sweep import sweep_tenants  # brings Celery, which `up` does not need here

    warnings_to_stderr()
    at, _ = open_services()
    done = sweep_tenants(at)
    if any(done.values()):
        say(f"{done['hinted']} hinted, {done['pruned']} pruned")
