"""Each platform's row says what its model and its samples show, no more and no less."""

import pkgutil
from collections.abc import Collection
from functools import cache

import pytest

import schemas
from schemas.outcome import ExamOutcome, Source
from schemas.platform import Platform, platform_of
from tests import samples
from worker.sources import read

MEMBERS = (
    "delivery",
    "event_ref",
    "started_at",
    "completed_at",
    "complete_reason",
    "termination_reason",
    "cut_score_type",
)
PLATFORMS = [platform_of(source) for source in Source]
each_platform = pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.source)


@cache
def outcomes(source: Source) -> list[ExamOutcome]:
    """What the platform's samples mean. One of them, `whole`, has every member that is read."""
    bodies = [path.read_bytes() for path in samples.valid() if path.parent.name == source]
    return [outcome for outcome in (read(source, body) for body in bodies) if outcome]


def test_every_module_with_a_row_is_a_source_that_may_be_a_part_of_a_url() -> None:
    """A forgotten member of `Source` fails when the module is imported, here at the latest."""
    modules = [module.name for module in pkgutil.iter_modules(schemas.__path__)]
    named = {name for name in modules if "PLATFORM" in vars(__import__(f"schemas.{name}", fromlist=["PLATFORM"]))}
    assert named == {*Source} == {platform.source for platform in PLATFORMS}
    assert "events" not in named  # GET /v1/{tenant}/events/{id}


@each_platform
def test_a_platform_has_a_sample_with_every_member(platform: Platform) -> None:
    assert (samples.FOLDER / platform.source / "whole.json").exists(), f"add tests/samples/{platform.source}/whole.json"


@each_platform
def test_a_row_names_the_scores_ids_and_members_that_are_sent(platform: Platform) -> None:
    sent = outcomes(platform.source)
    assert {*platform.scores} == {name for one in sent for name in one.scores}
    assert {*platform.registration_ids} == {name for one in sent for name in one.registration_ids}
    assert {*platform.members} == {name for one in sent for name in MEMBERS if getattr(one, name) is not None}
    assert platform.usual_score in platform.scores


@each_platform
def test_a_row_says_which_abilities_results_have(platform: Platform) -> None:
    sent = outcomes(platform.source)
    assert platform.transformations is any(one.transformations for one in sent)
    assert platform.third_party_ids is any(one.candidate.third_party_ids for one in sent)
    assert platform.candidate_id is None or platform.candidate_id in platform.details


@each_platform
def test_the_name_of_a_sitting_is_made_of_candidate_data_only_where_the_row_says_so(platform: Platform) -> None:
    for one in outcomes(platform.source):
        who = (one.candidate.student_id, one.candidate.email, one.details.get(platform.candidate_id or ""))
        assert platform.personal_sitting is any(name in one.delivery for name in map(str, who) if name != "None")


@each_platform
def test_a_row_names_the_details_that_are_sent(platform: Platform) -> None:
    prefixes = tuple(name for name in platform.details if name.endswith("."))
    sent = {name for one in outcomes(platform.source) for name in one.details}
    assert {next(filter(name.startswith, prefixes), name) for name in sent} == {*platform.details}


@each_platform
def test_a_row_names_the_parts_that_are_sent(platform: Platform) -> None:
    sent: dict[str, Collection[str]] = {}
    for part in (part for one in outcomes(platform.source) for part in one.parts):
        sent[part.kind] = {*sent.get(part.kind, ()), *part.scores}
    assert {kind: {*scores} for kind, scores in platform.parts.items()} == sent


@pytest.mark.parametrize(
    ("value", "senders"),
    [
        ("scores.percent", {Source.CERTIVERSE, Source.DRILLSTER, Source.PROV}),
        ("scores.scaled", {Source.CERTIVERSE}),
        ("scores.Scaled", set()),
        ("scores.", set()),
        ("scores", set()),
        ("details.customData.Region", {Source.CERTIVERSE}),
        ("details.customData.a.b", {Source.CERTIVERSE}),
        ("details.customData", set()),
        ("details.customData.", set()),
        ("details.examCode.x", set()),
        ("details.test.id", {Source.DRILLSTER}),
        ("details.examName", {Source.CERTIVERSE, Source.PROV}),
        ("parts.topic.Ethics.raw", {Source.CERTIVERSE}),
        ("parts.topic.Ethics v1.2.reported", {Source.PROV}),
        ("parts.topic.percent", set()),
        ("parts.chapter.Ethics.percent", set()),
        ("parts.topic.Ethics.scaled", set()),
        ("event_ref", {Source.DRILLSTER, Source.PROV}),
        ("delivery", {*Source}),
        ("verdict", set()),
        ("", set()),
    ],
)
def test_a_custom_field_s_value_is_known_by_the_platforms_that_send_it(value: str, senders: set[Source]) -> None:
    three = map(platform_of, (Source.CERTIVERSE, Source.DRILLSTER, Source.PROV))
    assert {platform.source for platform in three if platform.sends(value)} == senders & {
        Source.CERTIVERSE,
        Source.DRILLSTER,
        Source.PROV,
    }


@each_platform
def test_every_value_that_is_shown_as_possible_is(platform: Platform) -> None:
    assert all(platform.sends(value) for value in platform.values())


@pytest.mark.parametrize(
    ("source", "path", "method"),
    [
        (Source.CERTIVERSE, "", "POST"),
        (Source.CERTIVERSE, "a/b", "POST"),
        (Source.DRILLSTER, "", "POST"),
        (Source.DRILLSTER, "TEST_COMPLETED", "POST"),
        (Source.DRILLSTER, "TEST_COMPLETED/42", "PUT"),
        (Source.DRILLSTER, "TEST_COMPLETED/4%2F2", "PUT"),
    ],
)
def test_a_path_has_the_method_of_its_template(source: Source, path: str, method: str) -> None:
    assert platform_of(source).method(path) == method
