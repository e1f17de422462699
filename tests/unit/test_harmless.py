"""What a stranger writes cannot hide, turn around what stands beside it, begin a line, or be calculated."""

import io
import json
import logging
import re
import sys
import unicodedata
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from worker.cli.output import complain, say, show_fields, show_json, show_line, show_table
from worker.console import wording
from worker.harmless import cell, harmless
from worker.settings import Settings
from worker.telemetry import set_up_logs

#: Turned around, zero wide, byte order mark, escape, NUL, new line, tab, lone surrogate, tag, filler, blank, selector.
HIDDEN = "\u202e\u2066\u200b\ufeff\x1b\0\n\t\r\x85\u2028\ud800\U000e0041\u3164\u2800\ufe0f\u034f\xad"
FORMULAS = ("＝cmd", "=cmd|'/C calc'!A1", "+1+cmd", "-2+3+cmd", "@SUM(1)", " =1+1", "\t=1+1", "--x")
PLAIN = (
    "-5",
    "+4.50",
    "-",
    "2026-05-01T00:00:00Z",
    "a=b",
    "ann@example.org",
    "José Ñandú 李",
    "−5",
    "-1,000",
    "+00:00",
)


@pytest.mark.parametrize("character", HIDDEN)
def test_a_hidden_character_is_written_as_its_number(character: str) -> None:
    assert harmless(f"a{character}b") == f"a⟨U+{ord(character):04X}⟩b"
    assert harmless(f"a{character}b", kept=character) == f"a{character}b"


@given(st.text(alphabet=st.characters(exclude_characters="⟨")))
def test_nothing_is_lost_and_what_is_left_can_be_seen(text: str) -> None:
    shown = harmless(text)
    assert re.sub("⟨U\\+([0-9A-F]+)⟩", lambda found: chr(int(found[1], 16)), shown) == text
    assert {unicodedata.category(one) for one in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"} == set()


@pytest.mark.parametrize("text", FORMULAS)
def test_in_front_of_a_formula_stands_an_apostrophe(text: str) -> None:
    assert cell(text) == "'" + harmless(text)


@pytest.mark.parametrize("text", PLAIN)
def test_numbers_and_words_stay_as_they_are(text: str) -> None:
    assert cell(text) == text


def test_a_table_in_a_pipe_has_a_line_for_each_row_and_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("one", "two"), [("=cmd", "a\nb\tc"), (-5, None), ("x\u202ey", "z")])
    show_fields({"id": "@cmd"})
    show_line(["+cmd", "\x1b[2J"])
    told = capsys.readouterr().out
    assert told == (
        "one\ttwo\n'=cmd\ta⟨U+000A⟩b⟨U+0009⟩c\n-5\t\nx⟨U+202E⟩y\tz\nfield\tvalue\nid\t'@cmd\n'+cmd\t⟨U+001B⟩[2J\n"
    )


def test_lines_to_people_are_harmless_and_json_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    say("two\nlines \u202e")
    complain("no \x1b[31m colour")
    show_json({"a": "=cmd \u202e"})
    out, err = capsys.readouterr()
    assert err == "examrelay: no ⟨U+001B⟩[31m colour\n"
    assert out.startswith("two\nlines ⟨U+202E⟩\n")
    assert json.loads(out.partition("\n")[2].partition("\n")[2]) == {"a": "=cmd \u202e"}


def test_pages_show_both() -> None:
    assert wording.shown("a\u202eb\n") == "a⟨U+202E⟩b\n"
    assert wording.plain("=cmd") == "'=cmd"
    assert (wording.plain(-5), wording.plain("-5")) == ("-5", "-5")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged on a terminal. Afterwards logging is as it was."""
    handlers, level = logging.root.handlers[:], logging.root.level
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    set_up_logs(Settings(redis_url="redis://localhost", log_format="console"))
    yield written
    logging.basicConfig(level=level, handlers=handlers, force=True)
    structlog.reset_defaults()


def test_a_value_in_the_log_begins_no_line_of_its_own(lines: io.StringIO) -> None:
    structlog.get_logger("worker").warning("record.failed", why="x\n2026 [error] forged \u202e\x1b[2J")
    logging.getLogger("kombu").error("a library says %s", "y\n2026 forged")
    told = re.sub("\x1b\\[[0-9;]*m", "", lines.getvalue())
    assert told.count("\n") == 2
    assert "x⟨U+000A⟩2026 [error] forged ⟨U+202E⟩⟨U+001B⟩[2J" in told
    assert "y⟨U+000A⟩2026 forged" in told
