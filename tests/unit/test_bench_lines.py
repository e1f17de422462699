"""The benchmark's verdicts: what counts as met, and that nothing is left out silently."""

import json
import re

import pytest

from bench.line import Line, as_json
from bench.measure import Effects, Write, rate
from bench.rows.table import ROWS
from tests.running import ROOT

HARMLESS = Effects(0, 0)


@pytest.mark.parametrize(
    ("line", "budget", "aim"),
    [
        (Line("ratio", 30, 2, 15, at_least=12, aim=20), "met", "missed"),
        (Line("ratio", 30, 2, 11.9, at_least=12, aim=20), "missed", "missed"),
        (Line("figure", 0.02, at_most=0.025, aim=0.02), "met", "met"),
        (Line("figure", 0.03, at_most=0.025, aim=0.02), "missed", "missed"),
        (Line("no budget", 3), "", ""),
        (Line("could not be had", at_least=3, aim=6), "not measured", "not measured"),
        (Line("one lost", 30, 2, 15, at_least=12, ours_effects=Effects(1, 0)), "missed", ""),
        (Line("one doubled", 30, 2, 15, at_least=12, ours_effects=Effects(0, 1)), "missed", ""),
        (Line("naive lost", 30, 2, 15, at_least=12, ours_effects=HARMLESS, other_effects=Effects(1, 0)), "met", ""),
    ],
    ids=lambda value: value.figure if isinstance(value, Line) else str(value),
)
def test_a_figure_is_held_against_budget_and_aim(line: Line, budget: str, aim: str) -> None:
    assert (line.verdict(line.bound), line.verdict(line.aim)) == (budget, aim)
    assert line.missed == (budget in ("missed", "not measured"))


def test_the_json_has_both_verdicts_of_each_line() -> None:
    told = json.loads(as_json({"row": [Line("ratio", 30, 2, 15, at_least=12, aim=20)]}, {"size": "tiny"}))
    (line,) = told["rows"]["row"]
    assert (line["budget"], line["aimed"], line["ratio"], told["size"]) == ("met", "missed", 15, "tiny")


def test_lost_and_doubled_events_are_counted_from_the_writes() -> None:
    done = [Write(1.0, ("a", "b")), Write(2.0, ("b", "c")), Write(3.0, ("b",))]
    assert Effects.of(done, ["a", "b", "c", "d"]) == Effects(lost=1, doubled=2)
    assert Effects.of(done, ["a", "c"]) == HARMLESS


def test_a_rate_is_from_the_first_writes_answer_to_the_lasts() -> None:
    assert rate([Write(10.0, ("a",)), Write(11.0, ("b", "c")), Write(12.0, ("d", "e"))]) == 2
    assert rate([Write(10.0, ("a",))]) == 0


def test_the_readme_explains_every_row_and_no_other() -> None:
    table = (ROOT / "bench" / "README.md").read_text().partition("| row |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z0-9_]+)`", table, re.MULTILINE) == list(ROWS)
