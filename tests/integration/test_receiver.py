"""The receiver over real HTTP: the answer to each request, and what is recorded afterwards."""

import asyncio
import gzip
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard
from standardwebhooks import Webhook
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.event import EventState
from tests.events import certiverse
from tests.running import wait_until
from tests.senders import CERTIVERSE, DRILLSTER, READER, SECRETS, WHSEC, ReceiverAt, receiver_at
from tests.tenants import ENVIRON
from worker.receiver.app import make_app
from worker.receiver.asgi import App
from worker.receiver.credentials import present
from worker.receiver.openapi import OPENAPI
from worker.settings import Settings
from worker.tenants import WebhookCredentials

BASIC = 'Basic realm="examrelay", Bearer'


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverAt]:
    """One receiver for all tests here."""
    with receiver_at(tmp_path_factory.mktemp("receiver")) as built:
        yield built


@pytest.fixture
def receiver(running: ReceiverAt) -> ReceiverAt:
    """The receiver, with nothing recorded."""
    running.client.flushall()
    return running


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "headers"),
    [
        ("POST", "/v1/acme/certiverse", {"auth": CERTIVERSE}, 202, {}),
        ("POST", "/v1/acme/certiverse/", {"auth": CERTIVERSE}, 202, {}),
        ("POST", "/v1/acme/certiverse?from=us", {"auth": CERTIVERSE}, 202, {}),
        ("POST", "/v1/acm%65/certiverse", {"auth": CERTIVERSE}, 202, {}),
        ("POST", "/v1/acme/drillster/TEST_COMPLETED", {"auth": DRILLSTER}, 202, {}),
        ("PUT", "/v1/acme/drillster/TEST_COMPLETED/1", {"auth": DRILLSTER}, 202, {}),
        ("POST", "/v1/acme/certiverse", {}, 401, {"WWW-Authenticate": BASIC}),
        ("POST", "/v1/acme/certiverse", {"auth": DRILLSTER}, 401, {"WWW-Authenticate": BASIC}),
        ("POST", "/v1/acme/drillster/TEST_COMPLETED", {"auth": CERTIVERSE}, 401, {"WWW-Authenticate": BASIC}),
        ("POST", "/v1/acme/prov", {}, 401, {"WWW-Authenticate": BASIC}),
        ("POST", "/v1/nobody/certiverse", {"auth": CERTIVERSE}, 404, {}),
        ("POST", "/v1/acme/nothing", {"auth": CERTIVERSE}, 404, {}),
        ("POST", "/v1/beta/drillster", {"auth": DRILLSTER}, 404, {}),
        ("POST", "/v1/acme", {"auth": CERTIVERSE}, 404, {}),
        ("POST", "/v1/acme/certiverse/more", {"auth": CERTIVERSE}, 404, {}),
        ("POST", "/", {}, 404, {}),
        ("GET", "/v1/acme/certiverse", {"auth": CERTIVERSE}, 405, {"Allow": "POST"}),
        ("HEAD", "/v1/acme/certiverse", {"auth": CERTIVERSE}, 405, {"Allow": "POST"}),
        ("PUT", "/v1/acme/certiverse", {"auth": CERTIVERSE}, 405, {"Allow": "POST"}),
        ("POST", "/v1/acme/drillster/TEST_COMPLETED/1", {"auth": DRILLSTER}, 405, {"Allow": "PUT"}),
        ("POST", "/v1/acme/events/evt_1", {}, 405, {"Allow": "GET, HEAD"}),
        ("PATCH", "/v1/acme/certiverse", {}, 405, {"Allow": "POST"}),
        ("OPTIONS", "/v1/acme/certiverse", {}, 204, {"Allow": "POST, OPTIONS"}),
        ("OPTIONS", "/nothing", {}, 404, {}),
        ("POST", "/v1/acme/certiverse", {"auth": CERTIVERSE, "headers": {"Content-Encoding": "br"}}, 415, {}),
        ("POST", "/v1/acme/certiverse", {"auth": CERTIVERSE, "headers": {"Content-Encoding": "gzip"}}, 400, {}),
        ("GET", "/v1/acme/events/evt_1", {}, 401, {"WWW-Authenticate": BASIC}),
        ("GET", "/v1/beta/events/evt_1", {"headers": READER}, 401, {"WWW-Authenticate": BASIC}),
        ("GET", "/v1/acme/events/evt_1", {"headers": READER}, 404, {}),
        ("GET", "/v1/nobody/events/evt_1", {"headers": READER}, 404, {}),
        ("GET", "/healthz", {}, 200, {}),
        ("HEAD", "/healthz", {}, 200, {}),
        ("GET", "/readyz", {}, 503, {}),
        ("GET", "/metrics", {}, 200, {}),
        ("GET", "/openapi.json", {}, 200, {}),
    ],
)
def test_each_request_has_its_answer(
    receiver: ReceiverAt, method: str, path: str, more: dict[str, Any], status: int, headers: dict[str, str]
) -> None:
    answer = receiver.call(method, path, b"{}" if method not in ("GET", "HEAD") else None, **more)
    assert answer.status_code == status
    allow = {"Allow": ", ".join(sorted(answer.headers["Allow"].split(", ")))} if status == 405 else {}
    assert {name: (allow or answer.headers)[name] for name in headers} == headers
    assert receiver.accepted() == (status == 202)


def test_the_contract_names_every_route_and_no_other_and_all_that_it_refers_to(
    receiver: ReceiverAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (ENVIRON | SECRETS).items():
        monkeypatch.setenv(name, value)
    app = make_app(Settings(redis_url=receiver.stack.valkey.url, config=receiver.stack.folder / "examrelay.toml"))
    routes = {(one.path, method) for one in app.routes if isinstance(one, Route) for method in one.methods or ()}
    told = {(path, name.upper()) for path, each in OPENAPI["paths"].items() for name in each if name != "parameters"}
    assert told == {(path, method) for path, method in routes if method != "HEAD"}
    text = receiver.call("GET", "/openapi.json").text
    assert json.loads(text) == OPENAPI
    named = [part.partition('"')[0].split("/") for part in text.split('"$ref":"#/components/')[1:]]
    assert {kind for kind, _ in named} == {"schemas", "parameters", "responses"}
    assert all(name in OPENAPI["components"][kind] for kind, name in named)
    in_paths = {name for path in OPENAPI["paths"] for name in re.findall(r"{(\w+)}", path)}
    parameters = json.dumps([each.get("parameters", []) for each in OPENAPI["paths"].values()])
    declared = {one["name"] for one in OPENAPI["components"]["parameters"].values()}
    assert in_paths == declared | set(re.findall(r'"name": "(\w+)"', parameters))


def test_the_same_delivery_again_is_the_same_event_in_its_present_state(receiver: ReceiverAt) -> None:
    first, again = (receiver.post(certiverse()).json() for _ in range(2))
    assert first == {"id": first["id"], "state": "received", "duplicate": False}
    assert again == first | {"duplicate": True}
    shown = receiver.call("GET", f"/v1/acme/events/{first['id']}", headers=READER).json()
    assert (shown["state"], shown["receipts"], shown["source"]) == ("received", 2, "certiverse")
    assert "payload" not in shown
    assert "Ada" not in json.dumps(shown)


def test_packed_chunked_and_plain_are_the_same_delivery(receiver: ReceiverAt) -> None:
    body = certiverse()
    packed, url = {"Content-Encoding": "gzip"}, "/v1/acme/certiverse"
    answers = [
        receiver.post(body),
        receiver.post(gzip.compress(body), headers=packed),
        receiver.call("POST", url, iter([body[:100], body[100:]]), auth=CERTIVERSE),
        receiver.call("POST", url, iter([gzip.compress(body)]), auth=CERTIVERSE, headers=packed),
    ]
    ids = [answer.json()["id"] for answer in answers]
    assert len(set(ids)) == 1


@pytest.mark.parametrize("body", [b"", b"\xff\x00", b"[]", b"not JSON"])
def test_nonsense_is_accepted_and_kept_as_it_came(receiver: ReceiverAt, body: bytes) -> None:
    id = receiver.post(body).json()["id"]
    event = receiver.event(id)
    assert event is not None
    assert event.state is EventState.RECEIVED
    assert zstandard.decompress(receiver.client.get(f"er:acme:payload:{id}")[1:]) == body


def test_of_a_body_over_the_limit_a_stub_is_kept_and_over_twenty_mib_nothing(receiver: ReceiverAt) -> None:
    id = receiver.post(b"x" * (2 * 2**20 + 1)).json()["id"]
    assert receiver.client.hget(f"er:acme:event:{id}", "problem") == b"body_too_large"
    assert receiver.client.memory_usage(f"er:acme:payload:{id}") < 2**17
    assert receiver.post(b"x" * (20 * 2**20 + 1)).status_code == 413
    bomb = gzip.compress(bytes(100 * 2**20))
    assert receiver.post(bomb, headers={"Content-Encoding": "gzip"}).status_code == 413
    assert receiver.accepted() == 1


def test_a_large_body_of_a_stranger_is_answered_without_being_kept(receiver: ReceiverAt) -> None:
    assert receiver.post(b"x" * (10 * 2**20), auth=("who", "knows")).status_code == 401
    assert receiver.call("POST", "/v1/nobody/certiverse", b"x" * (10 * 2**20)).status_code == 404
    assert receiver.accepted() == 0


@pytest.mark.parametrize(
    ("method", "below"),
    [
        ("POST", "TEST_COMPLETED"),
        ("PUT", "TEST_COMPLETED/4711"),
        ("PUT", "TEST_COMPLETED/a%2Fb"),
        ("PUT", "TEST_COMPLETED/a%3Ab%20c%25%C3%A9"),
        ("PUT", "TEST%5FCOMPLETED/..%2F.."),
    ],
)
def test_drillsters_type_and_id_are_recorded_as_in_the_url(receiver: ReceiverAt, method: str, below: str) -> None:
    answer = receiver.call(method, f"/v1/acme/drillster/{below}?x=1", b"{}", auth=DRILLSTER)
    assert answer.status_code == 202
    assert receiver.path(answer.json()["id"]) == below.encode()
    again = receiver.call(method, f"/v1/acme/drillster/{below}/", b"{}", auth=DRILLSTER)
    assert again.json() == answer.json() | {"duplicate": True}


def test_one_result_in_two_places_is_two_events(receiver: ReceiverAt) -> None:
    paths = ["", "/TEST_COMPLETED"]
    ids = [receiver.call("POST", f"/v1/acme/drillster{path}", b"{}", auth=DRILLSTER).json()["id"] for path in paths]
    assert len(set(ids)) == 2


def test_keys_in_the_body_open_the_receiver_and_are_nowhere_afterwards(receiver: ReceiverAt) -> None:
    def body(key: str, secret: str) -> bytes:
        return json.dumps({"candidateId": "c-1", "apiKey": key, "secretKey": secret}).encode()

    first = receiver.post(body(SECRETS["ACME_PROV_KEY"], SECRETS["ACME_PROV_SECRET"]), "prov", auth=None)
    rotated = receiver.post(body(SECRETS["ACME_PROV_NEXT"], SECRETS["ACME_PROV_NEXT"]), "prov", auth=None)
    assert receiver.post(body(SECRETS["ACME_PROV_NEXT"], "MARKED-guess"), "prov", auth=None).status_code == 401
    assert (first.status_code, rotated.status_code) == (202, 202)
    assert rotated.json() == first.json() | {"duplicate": True}
    kept = zstandard.decompress(receiver.client.get(f"er:acme:payload:{first.json()['id']}")[1:])
    assert kept == body("", "")
    assert b"MARKED" not in b"".join(receiver.client.dump(key) or b"" for key in receiver.client.keys("*"))
    assert "MARKED" not in receiver.stack.log("web").read_text()


def test_a_bearer_a_header_and_a_signature_open_the_receiver(receiver: ReceiverAt) -> None:
    body = certiverse()
    signed, _ = present(WebhookCredentials.model_construct(kind="standard-webhooks", secret=_Secret(WHSEC)), body)
    for headers in ({"Authorization": "Bearer b3ta"}, {"x-api-key": "h3ader"}, signed):
        assert receiver.call("POST", "/v1/beta/certiverse", body, headers=headers).status_code == 202
    packed = {**signed, "Content-Encoding": "gzip"}
    assert receiver.call("POST", "/v1/beta/certiverse", gzip.compress(body), headers=packed).status_code == 202
    for headers in ({"Authorization": "Bearer b3tb"}, {"x-api-key": "other"}, signed | {"webhook-id": "other"}, {}):
        assert receiver.call("POST", "/v1/beta/certiverse", body, headers=headers).status_code == 401
    assert Webhook(WHSEC).verify(body, signed)
    assert receiver.accepted("beta") == 1


class _Secret:
    def __init__(self, value: str) -> None:
        self.get_secret_value = lambda: value


def test_the_last_fifty_refusals_of_a_source_are_noted_without_their_bodies(receiver: ReceiverAt) -> None:
    for number in range(55):
        receiver.post(b"MARKED", auth=("certiverse", f"wrong-{number}"))
    receiver.call("GET", "/v1/acme/certiverse")
    receiver.post(b"MARKED", headers={"Content-Encoding": "br"})
    wait_until(lambda: b" 415 " in b"".join(receiver.client.lrange("er:acme:refused:certiverse", 0, 0)), 5, "the last")
    lines = [line.decode() for line in receiver.client.lrange("er:acme:refused:certiverse", 0, -1)]
    assert len(lines) == 50
    assert [line.split(" ")[1] for line in lines[:3]] == ["415", "405", "401"]
    assert "MARKED" not in "".join(lines)
    receiver.call("POST", "/v1/nobody/certiverse", b"")
    receiver.call("POST", "/v1/acme/events/evt_1", b"")
    assert not receiver.client.keys("er:nobody:*")
    assert not receiver.client.exists("er:acme:refused:drillster")  # it was for no source


def test_the_figures_count_by_names_of_the_tenants_file_only(receiver: ReceiverAt) -> None:
    before = receiver.metrics()
    receiver.post(certiverse())
    receiver.post(certiverse())
    receiver.post(b"", auth=("who", "knows"))
    receiver.call("POST", "/v1/MARKED/certiverse", b"")
    receiver.call("POST", "/v1/acme/MARKED", b"")
    receiver.call("GET", "/MARKED")
    after = receiver.metrics()
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name)}
    by_source = 'source="certiverse"'
    wanted = {
        f'examrelay_accepted_total{{duplicate="false",{by_source},tenant="acme"}}': 1,
        f'examrelay_accepted_total{{duplicate="true",{by_source},tenant="acme"}}': 1,
        f'examrelay_refused_total{{{by_source},status="401",tenant="acme"}}': 1,
        'examrelay_refused_total{source="",status="404",tenant=""}': 3,
        "examrelay_record_seconds_count": 2,
    }
    assert {name: grown.get(name) for name in wanted} == wanted
    assert "MARKED" not in "".join(after)


def test_a_sender_who_leaves_in_the_middle_leaves_nothing_recorded(receiver: ReceiverAt) -> None:
    head = "POST /v1/acme/certiverse HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    head += "Authorization: Basic Y2VydGl2ZXJzZTpzM2NyZXQ=\r\n\r\n"
    before = receiver.metrics()
    with socket.create_connection(("127.0.0.1", receiver.stack.port)) as half:
        half.sendall(head.encode() + b"MARKED" * 100)
    name = 'examrelay_refused_total{source="certiverse",status="400",tenant="acme"}'
    wait_until(lambda: receiver.metrics().get(name, 0) == before.get(name, 0) + 1, 10, "the note of it")
    assert receiver.accepted() == 0
    log = receiver.stack.log("web").read_text()
    assert "MARKED" not in log
    assert "Traceback" not in log


def test_a_bug_of_ours_is_answered_with_500_and_a_time_to_send_it_again() -> None:
    """In a route of its own: ours have no known bug."""

    async def broken(_request: Request) -> Response:
        raise ZeroDivisionError

    route = Route("/v1/{tenant}/{source}", broken, methods=["POST"])
    app = App(routes=[route])
    path, told = "/v1/acme/certiverse", list[dict[str, Any]]()
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": []}

    async def call() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Any) -> None:
            told.append(message)

        await app(scope, receive, send)

    asyncio.run(call())
    start, body = told
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (500, b"60")
    assert json.loads(body["body"])["detail"] == "a bug of ours: send it again"
