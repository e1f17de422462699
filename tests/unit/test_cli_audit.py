"""What `audit`, `trace` and `forget` decide and print by themselves. No Redis."""

import json

import pytest
from typer.testing import CliRunner

from worker.cli import audit, trace
from worker.cli.app import app
from worker.errors import ConfigurationError
from worker.ledger.audit.books import Books
from worker.ledger.audit.events import Difference, Question

WRONG = Difference("rhythm", "reg-1", "reg-1", "status passed", "status failed; last changed by u-1 at noon", "reg-1")


@pytest.mark.parametrize("command", ["audit", "trace", "forget"])
def test_every_command_says_what_it_is_for(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert "Usage" in shown.output


@pytest.mark.parametrize("given", [{}, {"candidate": "a", "event": "b"}, {"candidate": ""}])
def test_trace_wants_exactly_one_thing_to_begin_with(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="needs one of"):
        trace.follow(**given)  # type: ignore[arg-type]


def test_the_json_of_an_audit_adds_tenants_up_and_names_each_difference(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"acme": Books(5, 4, 1, ()), "other": Books(2, 2, 0, ())}
    audit.show_audit(found, [("acme", WRONG)], as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "accepted": 7,
        "accounted": 6,
        "pruned": 1,
        "differences": [
            {
                "tenant": "acme",
                "kind": "rhythm",
                "id": "reg-1",
                "registration": "reg-1",
                "expected": "status passed",
                "found": "status failed; last changed by u-1 at noon",
            }
        ],
    }


def test_the_table_of_an_audit_says_what_to_type_next(capsys: pytest.CaptureFixture[str]) -> None:
    audit.show_audit({"acme": Books(5, 4, 1, ())}, [("acme", WRONG)], as_json=False)
    shown = capsys.readouterr().out
    assert "acme\t5\t4\t1\t1" in shown
    assert "examrelay audit --accept REGISTRATION" in shown
    audit.show_audit({"acme": Books(5, 5, 0, ())}, [], as_json=False)
    assert "--accept" not in capsys.readouterr().out


def test_a_difference_never_quotes_what_is_stored_of_a_person() -> None:
    question = Question("payload", "evt_1", "a payload", ("GET", "x"), lambda _: False)
    told = [question.difference(answer) for answer in (b"\xff\x00", b"x" * 65, None, 7)]
    assert [one.found for one in told if one] == ["other content", "other content", "nothing", "7"]
