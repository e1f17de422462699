"""The bodies of the fuzz: each sample is cut right, and a seed gives the same bodies again."""

import json
from itertools import islice

import pytest

from chaos.fuzz import all_samples
from chaos.mutations import Mutator, Sample

SAMPLES = all_samples()
CUT = [one for one in SAMPLES if one.spans]


@pytest.mark.parametrize("sample", CUT, ids=lambda sample: sample.source)
def test_each_value_of_a_sample_is_found_with_its_name(sample: Sample) -> None:
    for span in sample.spans:
        json.loads(sample.text[span.start : span.end])
        if span.name is not None:
            assert json.loads(b"{" + sample.text[span.name : span.end] + b"}")
    values = json.loads(sample.text, object_pairs_hook=lambda members: [value for _, value in members])
    assert len(sample.spans) == _count(values)


def _count(value: object) -> int:
    return 1 + sum(map(_count, value if isinstance(value, list) else ()))


def test_a_seed_gives_the_same_bodies_and_they_are_of_many_kinds() -> None:
    made = [list(islice(iter(Mutator(SAMPLES, seed), None), 2000)) for seed in (7, 7, 8)]
    assert made[0] == made[1] != made[2]
    assert len(set(made[0])) > 1900
    valid = sum(_is_json(body) for _, body in made[0])
    assert 0.3 < valid / 2000 < 0.9
    assert {source for source, _ in made[0]} == {"certiverse", "drillster", "prov"}


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
