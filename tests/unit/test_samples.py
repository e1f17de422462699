"""Every sample file is a test."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from schemas.outcome import ExamOutcome, Source
from tests import samples
from worker.errors import PermanentError
from worker.sources import read


def name(path: Path) -> str:
    return path.relative_to(samples.FOLDER).with_suffix("").as_posix()


def source(path: Path) -> Source:
    return Source(path.relative_to(samples.FOLDER).parts[0])


def beside(path: Path) -> ExamOutcome | None:
    """The outcome beside a sample. It has the address folded, and as it was sent where that is another spelling."""
    document = json.loads(path.with_suffix(".outcome.json").read_text())
    if document is None:
        return None
    folded = document["candidate"].pop("email", None)
    document["candidate"].setdefault("email_sent", folded)
    outcome = TypeAdapter(ExamOutcome).validate_json(json.dumps(document))
    assert outcome.candidate.email == folded
    return outcome


@pytest.mark.parametrize("path", samples.valid(), ids=name)
def test_a_valid_sample_means_what_stands_beside_it(path: Path) -> None:
    assert read(source(path), path.read_bytes()) == beside(path)


def test_a_sample_has_the_version_that_it_had_in_every_release() -> None:
    """Another version of the same bytes would be another result: it would be held, or written again."""
    for sample, version in json.loads((samples.FOLDER / "versions.json").read_text()).items():
        outcome = read(source(samples.FOLDER / f"{sample}.json"), samples.body(sample))
        assert outcome is not None
        assert outcome.version == version, sample


@pytest.mark.parametrize("path", samples.invalid(), ids=name)
def test_an_invalid_sample_is_refused_in_the_words_beside_it(path: Path) -> None:
    with pytest.raises(PermanentError) as caught:
        read(source(path), path.read_bytes())
    assert f"{caught.value}\n" == path.with_suffix(".error.txt").read_text()


def test_no_expectation_stands_alone() -> None:
    payloads = {path.with_suffix("") for path in samples.valid() + samples.invalid()}
    outcomes = {path.with_suffix("").with_suffix("") for path in samples.FOLDER.rglob("*.outcome.json")}
    errors = {path.with_suffix("").with_suffix("") for path in samples.FOLDER.rglob("*.error.txt")}
    assert outcomes | errors == payloads
    assert len(payloads) > 60


@pytest.mark.parametrize("path", samples.valid(), ids=name)
def test_people_in_samples_are_invented(path: Path) -> None:
    text = path.read_text()
    assert text.count("@") == text.lower().count("@example.")
