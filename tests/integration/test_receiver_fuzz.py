"""Whatever is sent to the receiver: no 5xx except 503; what is accepted is recorded, and nothing else is."""

import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaos.fuzz import TENANTS, accounted, send, tables
from schemas.event import EventState
from tests.acceptance.stack import stack_at
from tests.pipeline import Pipeline
from tests.senders import NOWHERE, ReceiverAt, receiver_at
from worker.bootstrap import build
from worker.ledger import queries
from worker.ledger.audit.books import books
from worker.settings import Settings

BASIC = ("Authorization", "Basic Y2VydGl2ZXJzZTpzM2NyZXQ=")
DRILLSTER = ("Authorization", "Basic ZHJpbGxzdGVyOmRyMWxsc3Rlcg==")
FULL = os.environ.get("EXAMRELAY_FULL") == "1"
_SETTINGS = settings(
    max_examples=5000 if FULL else 120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverAt]:
    """One receiver for all that is sent."""
    with receiver_at(tmp_path_factory.mktemp("fuzz")) as built:
        yield built


#: What a URL may hold, and what it may not but is sent all the same.
STEP = st.sampled_from(
    ["v1", "acme", "beta", "certiverse", "drillster", "prov", "events", "TEST_COMPLETED", "a%2Fb", "%ff", "%", "..", ""]
) | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#"), max_size=12)
SOURCES = ["/v1/acme/certiverse", "/v1/acme/drillster", "/v1/acme/drillster/T", "/v1/acme/prov", "/v1/beta/certiverse"]
PATHS = st.one_of(
    st.sampled_from(SOURCES),
    st.lists(STEP, max_size=4).map(lambda steps: "/" + "/".join(steps)),
    st.lists(STEP, min_size=1, max_size=4).map(lambda steps: "/v1/acme/" + "/".join(steps)),
    STEP.map(lambda tenant: f"/v1/{tenant}/certiverse"),
)
METHODS = st.sampled_from(["POST", "POST", "PUT", "GET", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE"])
VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30)
NAMES = ["Authorization", "Content-Encoding", "Content-Type", "X-Api-Key", "webhook-id", "webhook-signature", "Expect"]
HEADERS = st.lists(
    st.sampled_from([BASIC, BASIC, DRILLSTER, ("Authorization", "Bearer b3ta"), ("Content-Encoding", "gzip")])
    | st.tuples(st.sampled_from(NAMES), VALUE),
    max_size=4,
)
BODIES = st.binary(max_size=400) | st.recursive(
    st.none() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["apiKey", "x"]), inner, max_size=3),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())


#: Most are near enough to a delivery to get far.
NEAR = st.sampled_from(
    [
        ("POST", "/v1/acme/certiverse", [BASIC]),
        ("POST", "/v1/acme/drillster/T", [DRILLSTER]),
        ("PUT", "/v1/acme/drillster/T/%00%2F", [DRILLSTER]),
        ("POST", "/v1/beta/certiverse/", [("x-api-key", "h3ader")]),
        ("POST", "/v1/acme/prov", []),
        ("POST", "/v1/acme/certiverse", [BASIC, ("Content-Encoding", "gzip")]),
    ]
)
REQUESTS = st.tuples(METHODS, PATHS, HEADERS) | st.builds(lambda near, more: (*near[:2], near[2] + more), NEAR, HEADERS)


@_SETTINGS
@given(REQUESTS, BODIES)
def test_no_request_whatever_breaks_the_receiver_or_is_accepted_and_lost(
    receiver: ReceiverAt, asked: tuple[str, str, list[tuple[str, str]]], body: bytes
) -> None:
    method, path, headers = asked
    before = receiver.accepted("acme") + receiver.accepted("beta")
    connection = http.client.HTTPConnection("127.0.0.1", receiver.stack.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        connection.putheader("Content-Length", str(len(body)))
        for name, value in headers:
            connection.putheader(name, value.encode("latin-1"))
        connection.endheaders(body)
        answer = connection.getresponse()
        told = answer.read()
    finally:
        connection.close()
    assert answer.status < 500 or (answer.status == 503 and path.startswith("/readyz")), (answer.status, told)
    new = receiver.accepted("acme") + receiver.accepted("beta") - before
    if answer.status != 202:
        assert new == 0
        return
    receipt = json.loads(told)
    assert new == (not receipt["duplicate"])
    assert any(receiver.event(receipt["id"], tenant) for tenant in ("acme", "beta"))


@_SETTINGS
@given(
    st.lists(
        st.binary(max_size=60)
        | st.sampled_from(
            [
                b"POST /v1/acme/certiverse HTTP/1.1\r\n",
                b"\r\n\r\n",
                b"Host: x\r\n",
                b"Authorization: " + BASIC[1].encode() + b"\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"5\r\nhello\r\n",
                b"0\r\n\r\n",
                b"Content-Length: 5\r\n",
            ]
        ),
        max_size=8,
    )
)
def test_no_bytes_whatever_break_the_receiver(receiver: ReceiverAt, parts: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", receiver.stack.port), timeout=10) as raw:
        try:
            raw.sendall(b"".join(parts))
            raw.shutdown(socket.SHUT_WR)
            answer = raw.makefile("rb").read()
        except OSError:  # it hung up
            return
    for line in answer.split(b"HTTP/1.1 ")[1:]:
        assert not line.startswith(b"5"), answer


def test_after_all_that_it_is_alive_and_has_reported_no_bug(receiver: ReceiverAt) -> None:
    assert receiver.accepted("acme") > 5  # else nothing got far enough to break anything
    assert receiver.call("GET", "/healthz").status_code == 200
    log = receiver.stack.log("web").read_text()
    assert "bug.caught" not in log
    assert "Traceback" not in log


def test_bodies_made_from_samples_are_all_accepted_read_and_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample of what `make fuzz` does with a million and real workers."""
    with stack_at(tmp_path, NOWHERE, {"more": tables(NOWHERE.url)}) as stack:
        stack.start("web")
        sent = send(stack.port, 1000, "a sample", tmp_path)
        for name in ("REDIS_URL", "EXAMRELAY_CONFIG", "ACME_RHYTHM", "ACME_CERTIVERSE", "ACME_READ"):
            monkeypatch.setenv(name, stack.environ[name])
        pipeline = Pipeline(build(Settings(), patient=False), NOWHERE)
        for tenant in TENANTS:
            while _due(stack.client, tenant):
                pipeline.process(tenant)
            assert books(stack.client, tenant).differences == ()
            assert queries.counts(stack.client, tenant)[EventState.READY] > 0, "some are valid"
        pipeline.close()
        assert [*sent.wrong, *accounted(stack.client, sent)] == []


def _due(client: "redis.Redis", tenant: str) -> bool:
    """Whether an event is received that no try has put off."""
    due = queries.oldest_due(client, tenant, EventState.RECEIVED)
    return due is not None and due <= queries.redis_now(client)
