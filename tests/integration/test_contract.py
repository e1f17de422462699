"""The contract (`/openapi.json`) holds: schemathesis makes requests from it, and each answer is held against it.

With EXAMRELAY_FULL=1 (`make proofs`) it makes thousands; else some.
"""

import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

from tests.senders import CERTIVERSE, READER, ReceiverAt, receiver_at

FULL = os.environ.get("EXAMRELAY_FULL") == "1"
#: What the contract cannot say is not checked: that any body is taken, also one that is not valid.
HELD = (
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverAt]:
    """One receiver for all."""
    with receiver_at(tmp_path_factory.mktemp("contract")) as built:
        yield built


def test_each_answer_is_as_the_contract_says(receiver: ReceiverAt) -> None:
    schema = schemathesis.openapi.from_url(f"{receiver.stack.url}/openapi.json")
    checks = CHECKS.get_by_names(HELD)
    operations = [found.ok() for found in schema.get_all_operations()]
    known = {
        "tenant": st.sampled_from(("acme", "beta")),
        "source": st.sampled_from(("certiverse", "drillster", "prov")),
    }
    statuses = set[int]()
    event = receiver.post(b"{}").json()["id"]

    # A sample is the same each time: of sixty that are drawn anew, some have no request of a stranger.
    examples = 6000 if FULL else 60

    @settings(max_examples=examples, derandomize=not FULL, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def asked(data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(operations))
        case = data.draw(operation.as_strategy(generation_mode=data.draw(st.sampled_from(list(GenerationMode)))))
        for name, values in known.items():
            if name in case.path_parameters and data.draw(st.booleans()):
                case.path_parameters[name] = data.draw(values)
        if "id" in case.path_parameters and data.draw(st.booleans()):
            case.path_parameters |= {"tenant": "acme", "id": event}
        auth = data.draw(st.sampled_from((CERTIVERSE, ("drillster", "dr1llster"), None)))
        more = data.draw(st.sampled_from((READER, {}, {}))) if auth is None else {}
        answer = case.call(auth=auth, headers=more)
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=checks)
        assert answer.status_code < 500 or "readyz" in case.path

    asked()
    assert {200, 202, 401, 404} <= statuses
    assert "bug.caught" not in receiver.stack.log("web").read_text()
