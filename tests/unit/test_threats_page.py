"""`docs/threats.md` names tests that there are, and every wall has one."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "threats.md").read_text()
WALLED, _, NOT_WALLED = PAGE.partition("## Not walled")
ROWS = [
    line.strip("|").split(" | ") for line in WALLED.splitlines() if re.match(r"\| (?!---|tries|happens|kind)", line)
]


def test_each_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(\w+/\w+\.py)::(\w+)`", PAGE)
    there = {file: _functions(TESTS / file) for file, _ in named}
    assert [f"{file}::{name}" for file, name in named if name not in there[file]] == []


def test_each_wall_has_a_test() -> None:
    threats = [row for row in ROWS if len(row) == 3]
    assert len(threats) > 30
    assert [row[0] for row in threats if not re.fullmatch(r"(?:`\w+/\w+\.py::\w+` ?)+", row[2].strip())] == []


def test_what_no_wall_stands_against_is_told() -> None:
    assert NOT_WALLED.count("\n| ") > 5


def _functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text())) if path.exists() else ()
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
