"""The measures of the house: lengths of modules and functions, suppressions, and names."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.running import ROOT

PACKAGES = ("schemas", "worker", "tasks", "sandbox")
MODULES = [path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
FOLDERS = ("tests", "bench", "chaos")
OTHERS = [path.relative_to(ROOT) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
MODULE_LINES, FUNCTION_LINES = 300, 40
SUPPRESSIONS, UNFORMATTED = 10, 5
SUPPRESSION = re.compile(r"# (?:noqa|type: ignore|pragma: no cover)")
#: In two pieces, so that this file is none of them.
UNFORMATTED_MARK = "# fmt: " + "skip"
#: `worker/cli/services.py` is about `worker.bootstrap.Services`: it opens them for a command.
EMPTY_NAMES, ALLOWED = {"utils", "helpers", "common", "base", "core", "services"}, {Path("worker/cli/services.py")}
#: Modules that may have the name of another, and why that is no confusion. A module of `worker/cli` has its command's.
TWINS = {
    "__init__": "packages",
    "__main__": "what `python -m` runs",
    "app": "the ASGI applications of the receiver, the stand-in and the console",
    "client": "of Redis, and of Rhythm",
    "batch": "a batch that a task has claimed, and Rhythm's batch call",
    "events": "the ledger's, and their audit",
    "keys": "the ledger's, and their audit",
}


def text(module: Path) -> str:
    return (ROOT / module).read_text()


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_module_and_no_function_is_too_long(module: Path) -> None:
    length = len(text(module).splitlines())
    assert length <= MODULE_LINES
    nodes = ast.walk(ast.parse(text(module)))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [one.name for one in functions if (one.end_lineno or 0) - one.lineno >= FUNCTION_LINES] == []


def test_little_is_suppressed() -> None:
    found = {str(module): len(SUPPRESSION.findall(text(module))) for module in MODULES}
    assert sum(found.values()) <= SUPPRESSIONS, {name: count for name, count in found.items() if count}


def test_little_is_kept_from_the_formatter() -> None:
    found = {str(module): text(module).count(UNFORMATTED_MARK) for module in MODULES + OTHERS}
    assert sum(found.values()) <= UNFORMATTED, {name: count for name, count in found.items() if count}


def test_each_module_has_a_name_that_says_something() -> None:
    assert [
        module for module in MODULES if EMPTY_NAMES & {*module.with_suffix("").parts} and module not in ALLOWED
    ] == []


def test_no_two_modules_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module in MODULES:
        if module.parent != Path("worker/cli"):
            places[module.stem].append(str(module))
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in TWINS} == {}
