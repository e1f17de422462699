"""Custom fields in Rhythm, as the exam map fills them."""

from pathlib import Path

import pytest
import redis

from sandbox.control import Sandbox
from tests.events import certiverse, registration
from tests.pipeline import ORG, pipeline_at

FIELD, OTHER = "exams__percent__c", "exams__note__c"
MAP = f'custom_fields = [ {{ id = "{FIELD}", value = "scores.percent" }} ]'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, [{"custom_field_id": FIELD, "numeric_value": 80.0}]),
        (
            [{"custom_field_id": OTHER, "string_value": "keep"}],
            [{"custom_field_id": OTHER, "string_value": "keep"}, {"custom_field_id": FIELD, "numeric_value": 80.0}],
        ),
        (
            [{"custom_field_id": FIELD, "numeric_value": 1}, {"custom_field_id": OTHER, "string_value": "keep"}],
            [{"custom_field_id": FIELD, "numeric_value": 80.0}, {"custom_field_id": OTHER, "string_value": "keep"}],
        ),
    ],
    ids=["absent array", "added", "replaced"],
)
def test_a_custom_field_is_written_beside_the_others(
    client: "redis.Redis", rhythm: Sandbox, tmp_path: Path, before: object, after: object
) -> None:
    rhythm.seed(ORG, [registration(**({"custom_field_values": before} if before else {}))])
    with pipeline_at(tmp_path, rhythm, more=MAP) as pipeline:
        (event,) = pipeline.run(certiverse())
        assert event.result == "written"
        assert pipeline.registration()["custom_field_values"] == after
        (again,) = pipeline.run(certiverse("dlv-1", percent=80.00, timeOnExam=61.50))
        assert again.state in ("synced", "duplicate")
        assert pipeline.registration()["sys_version"] == 2
