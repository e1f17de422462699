"""One sample of each platform through the whole pipeline: HTTP, process, sync, the stand-in Rhythm."""

from collections.abc import Iterator
from string import Formatter

import pytest
import requests

from sandbox.control import Sandbox
from schemas.event import Event, EventState, Reason
from schemas.outcome import ExamOutcome, Source
from schemas.platform import Platform, platform_of
from tests import samples
from tests.acceptance.stack import Stack, stack_at
from tests.pipeline import ORG, Pipeline
from tests.tenants import ENVIRON
from worker.bootstrap import build
from worker.settings import Settings
from worker.sources import read

PLATFORMS = [platform_of(source) for source in Source]
each_platform = pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.source)
SENDER = ("sender", ENVIRON["ACME_CERTIVERSE"])


def sample(platform: Platform) -> tuple[bytes, ExamOutcome]:
    body = samples.body(f"{platform.source}/{platform.sample}")
    outcome = read(platform.source, body)
    assert outcome is not None
    assert outcome.verdict, "the platform's sample must have a verdict"
    return body, outcome


def student_of(outcome: ExamOutcome) -> str | None:
    return outcome.candidate.student_id or next(iter(outcome.candidate.third_party_ids.values()), None)


def tables(platform: Platform) -> str:
    """A tenant of its own for each platform, with all that the platform's sample needs."""
    _, outcome = sample(platform)
    third_party = next(iter(outcome.candidate.third_party_ids), None)
    ids = [*outcome.registration_ids][:1]
    return f"""
[tenants.of-{platform.source}]
[tenants.of-{platform.source}.rhythm]
url = "RHYTHM_URL"
tenant_id = "{ORG}"
credentials = {{ kind = "api_key", key = "env:ACME_RHYTHM" }}
[tenants.of-{platform.source}.sources.{platform.source}]
credentials = [ {{ kind = "basic", user = "sender", password = "env:ACME_CERTIVERSE" }} ]
registration_ids = {ids}
{f'third_party = "{third_party}"' if third_party else ""}
[[tenants.of-{platform.source}.exams]]
exam_id = "exam-of-{platform.source}"
codes = ["{outcome.exam_codes[0]}"]
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, running_sandbox: Sandbox) -> Iterator[Stack]:
    more = "".join(map(tables, PLATFORMS)).replace("RHYTHM_URL", running_sandbox.url)
    with stack_at(tmp_path_factory.mktemp("platforms"), running_sandbox, {"more": more}) as built:
        built.start("web")
        yield built


@pytest.fixture
def pipeline(stack: Stack, rhythm: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    services = build(Settings(redis_url=stack.valkey.url, config=stack.folder / "examrelay.toml"), patient=False)
    yield Pipeline(services, rhythm)
    services.close()


@each_platform
def test_a_result_of_each_platform_comes_to_rhythm(stack: Stack, pipeline: Pipeline, platform: Platform) -> None:
    body, outcome = sample(platform)
    tenant, registration = f"of-{platform.source}", next(iter(outcome.registration_ids.values()), "reg-1")
    open_one = {
        "id": registration,
        "exam_id": f"exam-of-{platform.source}",
        "status": "registered",
        "student_id": student_of(outcome),
        "email_address": outcome.candidate.email,
        "date": "2000-01-01T00:00:00Z",
        "sys_version": 1,
    }
    pipeline.rhythm.seed(ORG, [{name: value for name, value in open_one.items() if value is not None}])

    answer = requests.post(f"{stack.url}/v1/{tenant}/{platform.source}", body, auth=SENDER, timeout=10)
    assert answer.status_code == 202
    event = through(pipeline, tenant, answer.json()["id"])

    assert (event.state, event.reason, event.result) == (EventState.SYNCED, None, "written")
    written = pipeline.registration(registration)
    assert written["status"] == outcome.verdict
    assert written["score"] == pytest.approx(float(outcome.scores[platform.usual_score]), abs=0.01)
    again = requests.post(f"{stack.url}/v1/{tenant}/{platform.source}", body, auth=SENDER, timeout=10).json()
    assert again == {"id": event.id, "state": "synced", "duplicate": True}


def through(pipeline: Pipeline, tenant: str, id: str) -> Event:
    """Process and sync; a sample of long ago is accepted as one."""
    pipeline.process(tenant)
    if pipeline.event(id, tenant).reason is Reason.RESULT_ANCIENT:
        pipeline.ledger.replay(tenant, id, "a test", {"accept": [Reason.RESULT_ANCIENT]}, "")
        pipeline.process(tenant)
    pipeline.sync(tenant)
    return pipeline.event(id, tenant)


@each_platform
def test_each_path_of_a_platform_takes_deliveries_and_is_in_the_contract(stack: Stack, platform: Platform) -> None:
    told = requests.get(f"{stack.url}/openapi.json", timeout=10).json()["paths"]
    for path in platform.paths:
        below = path.template.format_map({name: "x" for _, name, _, _ in Formatter().parse(path.template) if name})
        where = f"{stack.url}/v1/of-{platform.source}/{platform.source}/{below}"
        assert requests.request(path.method, where, data=b"{}", auth=SENDER, timeout=10).status_code == 202
        assert path.method.lower() in told[f"/v1/{{tenant}}/{platform.source}/{path.template}"]
