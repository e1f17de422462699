"""The command `examrelay`: registers what `commands.toml` lists, and ends with a sentence instead of a traceback.

A command's module, with its options and its work, is imported when the command is called: so `examrelay` starts fast.
"""

import sys
import tomllib
from importlib import import_module
from importlib.resources import files
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

from worker.cli.output import HOLDS, complain, say

app = typer.Typer(
    help="Takes exam results to the exam registration in Rhythm: once, in order, with a trace.",
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)
_GROUPS: Final = {
    "events": "Find and show events.",
    "held": "Events that wait for a person's answer.",
    "dead": "Events that will not go through as they are.",
    "tenants": "Move a tenant to another ledger.",
    "strays": "Messages to `tasks.receive` that could not be recorded: no tenant or source we know, or no body.",
}


def _lazily(function: str) -> type[TyperCommand]:
    """A command whose module is imported when it is called, completed or asked for its help, not when it is listed."""
    module, _, name = function.partition(":")

    class Lazy(TyperCommand):
        def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
            loaded = typer.Typer(add_completion=False)
            loaded.command(help=self.help, epilog=self.epilog)(getattr(import_module(f"worker.cli.{module}"), name))
            return typer.main.get_command(loaded).make_context(info_name, args, parent, **extra)

    return Lazy


def _register() -> None:
    groups = {"": app, **{name: typer.Typer(help=help, no_args_is_help=True) for name, help in _GROUPS.items()}}
    commands = tomllib.loads((files("worker.cli") / "commands.toml").read_text())
    for words, command in commands.items():
        group, _, name = words.rpartition(" ")
        examples = (f"examrelay {words} {example}".rstrip() for example in command["examples"])
        groups[group].command(
            name, cls=_lazily(command["function"]), help=command["help"], epilog="\n\n".join(["Examples:", *examples])
        )(_not_imported)
    for name in _GROUPS:
        app.add_typer(groups[name], name=name)


def _not_imported() -> None:
    """Stands for the function of a command whose module is not imported yet."""


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Print the release, and nothing else.")
    ] = False,
) -> None:
    if version:
        from worker.settings import running_version  # brings pydantic, which `--help` does not need

        say(running_version())
        raise typer.Exit(HOLDS)


_register()


def main() -> None:
    """Run the command. A mistake is one sentence that says what to do, never a traceback."""
    try:
        app()
    except Exception as error:
        from worker.cli.failures import explain  # brings Redis' client, which `--help` does not need

        explained = explain(error)
        if explained is None:
            raise
        code, sentence = explained
        complain(sentence)
        sys.exit(code)
