"""`tests/README.md` names tests that there are, for every promise."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS / "README.md").read_text()
NAMED = re.findall(r"`(\w+/\w+\.py)::(\w+)`", PAGE)


def test_each_test_that_the_page_names_exists() -> None:
    there = {file: _functions(TESTS / file) for file, _ in NAMED}
    assert [f"{file}::{name}" for file, name in NAMED if name not in there[file]] == []


def _functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text())) if path.exists() else ()
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_row_names_a_test_and_each_promise_has_a_row() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \|$", PAGE.partition("## Each promise")[2], re.MULTILINE)
    rows = [(subject, test) for subject, test in rows if subject not in ("promise", "rule", "---")]
    assert [subject for subject, test in rows if not re.fullmatch(r"`\w+/\w+\.py::\w+`", test)] == []
    assert {int(subject.split()[0]) for subject, _ in rows if subject[0].isdigit()} == set(range(1, 11))


def test_the_files_that_the_page_names_exist() -> None:
    stages = re.findall(r"`(test_\w+)(\*?)`", PAGE)
    assert [name for name, star in stages if not list((TESTS / "integration").glob(f"{name}{star}.py"))] == []
