"""Commands that do the processes' work: `examrelay up` runs all of them, `examrelay sweep` makes one pass."""

from typing import Annotated

import typer

from worker.cli.output import say
from worker.cli.services import open_services, warnings_to_stderr


def up(
    sandbox: Annotated[bool, typer.Option("--sandbox", help="With a stand-in Rhythm and a tenant, acme.")] = False,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The receiver's port; 0: a free one.")] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Write the processes' output to their log files only.")
    ] = False,
) -> None:
    from worker.local.up import up as run_all  # only this command needs it

    raise typer.Exit(run_all(sandbox=sandbox, port=port, quiet=quiet))


def sweep() -> None:
    from tasks.sweep import sweep_tenants  # brings Celery, which `up` does not need here

    warnings_to_stderr()
    at, _ = open_services()
    done = sweep_tenants(at)
    if any(done.values()):
        say(f"{done['hinted']} hinted, {done['pruned']} pruned")
