"""What the commands decide by themselves: filters, answers, what is shown of a setting. No Redis."""

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer

from schemas.event import Event, EventState, Policy, Reason
from schemas.outcome import Source
from tasks.operator import steering
from tasks.operator.listing import Filters
from worker.cli import steer
from worker.cli.app import app
from worker.cli.settings import rows as setting_rows
from worker.cli.steer import Scope
from worker.errors import ConfigurationError
from worker.ledger.durability import WANTED
from worker.ledger.keys import FINAL
from worker.settings import Settings

ROOT = Path(__file__).parent.parent.parent
NOBODY: Any = None


def event(reason: Reason, detail: str = "equally likely: reg-1, reg-2") -> Event:
    return Event(
        id="evt_1",
        tenant="acme",
        source=Source.CERTIVERSE,
        state=EventState.HELD,
        reason=reason,
        detail=detail,
        received_at=datetime(2026, 5, 4, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "move",
    [
        lambda at: steer.move_events(at, Filters(), "replay", Scope(yes=True)),
        lambda at: steer.move_events(at, Filters(), "discard", Scope(yes=True)),
    ],
    ids=["replay", "discard"],
)
def test_acting_on_everything_is_refused(move: Any) -> None:
    with pytest.raises(ConfigurationError, match="needs to know which events"):
        move(NOBODY)


@pytest.mark.parametrize("state", sorted(FINAL))
def test_final_events_are_not_acted_on(state: EventState) -> None:
    with pytest.raises(ConfigurationError, match=f"is for held, dead, received, ready events; {state} is final"):
        steer.move_events(NOBODY, Filters(state=state), "discard", Scope(yes=True))


def test_an_unknown_reason_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"tired is not a reason.*unknown_exam"):
        Filters(reason="tired")
    with pytest.raises(ConfigurationError, match=r"--accept tired: no such reason.*result_conflict"):
        steering.answers_of(None, None, ["tired"])


def test_a_replay_without_the_answer_that_it_needs_is_refused_with_the_candidates() -> None:
    told = steering.lacks(event(Reason.REGISTRATION_AMBIGUOUS), {})
    assert told == (
        "evt_1 is held as registration_ambiguous (equally likely: reg-1, reg-2): it needs --registration REG"
    )
    assert steering.lacks(event(Reason.REGISTRATION_AMBIGUOUS), {"registration": "reg-1"}) is None


@pytest.mark.parametrize("reason", [one for one in Reason if one.policy is Policy.HELD])
def test_an_answer_disarms_exactly_its_reason(reason: Reason) -> None:
    needs_an_answer = steering.lacks(event(reason), {}) is not None
    # These are put right elsewhere: in the exam map, and in `writes`.
    assert needs_an_answer is (reason not in (Reason.UNKNOWN_EXAM, Reason.WRITES_OFF))
    other = Reason.RESULT_ANCIENT if reason is not Reason.RESULT_ANCIENT else Reason.RESULT_CONFLICT
    assert steering.lacks(event(reason), {"accept": [other]}) is not None
    asked = steering.option(event(reason))
    given = {"registration": "reg-1", "verdict": "passed", "accept": [reason]}
    fits = {name for name in given if steering.lacks(event(reason), {name: given[name]}) is None}
    wanted = {name for name in ("registration", "verdict", "accept") if f"--{name} " in asked}
    assert fits == (wanted or {"registration", *(["accept"] if reason is Reason.WRITES_OFF else [])})


@pytest.mark.parametrize("reason", [Reason.UNKNOWN_EXAM, Reason.INVALID_JSON, Reason.RHYTHM_UNAVAILABLE])
def test_what_cannot_be_accepted_is_refused_with_what_to_do_instead(reason: Reason) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing can be written in spite of it; put it right"):
        steering.answers_of(None, None, [reason])


@pytest.mark.parametrize(
    ("reason", "option"), [("registration_ambiguous", "registration"), ("result_unscored", "verdict")]
)
def test_a_reason_with_an_answer_of_its_own_is_not_accepted(reason: str, option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"answer with --{option}"):
        steering.answers_of(None, None, [reason])


def test_secrets_are_masked() -> None:
    settings = Settings(REDIS_URL="redis://:s3cret@127.0.0.1/0", SENTRY_DSN="https://s3cret@127.0.0.1/1")
    rows = setting_rows(settings)
    assert "s3cret" not in str(rows)
    assert {row["name"]: row["value"] for row in rows}["REDIS_URL"] == "********"


def test_every_setting_has_a_name_and_a_meaning() -> None:
    rows = setting_rows(Settings(REDIS_URL="redis://127.0.0.1/0"))
    assert all(re.fullmatch(r"REDIS_URL|HOST|PORT|SENTRY_[A-Z_]+|EXAMRELAY_[A-Z_]+", row["name"]) for row in rows)
    assert all(row["meaning"].endswith(".") for row in rows)


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that can be typed, by its words."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


@pytest.mark.parametrize(("words", "command"), [pytest.param(*each, id=each[0]) for each in commands()])
def test_every_command_says_what_it_is_for_with_examples_that_can_be_typed(words: str, command: Any) -> None:
    assert command.help
    title, *examples = command.epilog.split("\n\n")
    assert title == "Examples:"
    assert examples
    for example in examples:
        line = re.split(r" [|<] ", example)[0]
        assert line.startswith(f"examrelay {words}")
        arguments = shlex.split(line)[1 + len(words.split()) :]
        with command.make_context(words, arguments) as context:  # raises for an option that there is not
            reason = context.params.get("reason")
            assert reason is None or Reason(reason)


def test_the_redis_configuration_for_deployments_is_durable_enough() -> None:
    lines = (ROOT / "deploy" / "redis.conf").read_text().splitlines()
    told = dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    assert told.items() >= WANTED.items()


def test_the_command_shows_its_release(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["--version"], standalone_mode=False) == 0
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+\n", capsys.readouterr().out)
