"""What a stranger may have of the receiver, and what an attack on it costs."""

import signal
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from schemas.outcome import Source
from tests.events import certiverse
from tests.running import wait_until
from tests.senders import CERTIVERSE, ReceiverAt, receiver_at
from worker.ledger import queries
from worker.receiver.body import REFUSED_ABOVE

TOKEN = "a token of the metrics"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
#: Requests that are refused, and how: each with wrong credentials, or right ones and another fault.
RIGHT = f"Authorization: Basic {b64encode(':'.join(CERTIVERSE).encode()).decode()}\r\n"
WRONG = f"Authorization: Basic {b64encode(b'certiverse:s3creT').decode()}\r\n"
REFUSED = (
    ("POST /v1/acme/certiverse", WRONG, 401),
    ("POST /v1/acme/drillster/TEST_COMPLETED", WRONG, 401),
    ("POST /v1/acme/certiverse", "Authorization: Bearer x\r\n", 401),
    ("POST /v1/nobody/certiverse", RIGHT, 404),
    ("POST /v1/acme/nothing", RIGHT, 404),
    ("GET /v1/acme/certiverse", RIGHT, 405),
    ("POST /v1/acme/certiverse", RIGHT + "Content-Encoding: br\r\n", 415),
    ("GET /v1/acme/events/evt_1", WRONG, 401),
    ("GET /metrics", WRONG, 401),
)
TOGETHER, TIMES, ATTACKERS = 20, 5, 2
#: Good deliveries meanwhile, and sources whose refusals are noted.
GOOD, SOURCES = 20, 2


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverAt]:
    """One receiver for all tests here, with a token."""
    with receiver_at(tmp_path_factory.mktemp("receiver"), EXAMRELAY_METRICS_TOKEN=TOKEN) as built:
        yield built


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}x"},
    ],
)
def test_without_the_token_there_are_no_figures_and_no_details(receiver: ReceiverAt, headers: dict[str, str]) -> None:
    refused = receiver.call("GET", "/metrics", headers=headers)
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "examrelay_" not in refused.text
    told = receiver.call("GET", "/readyz", headers=headers)
    assert (told.status_code, told.json()) == (503, {"ready": False})
    assert receiver.call("GET", "/healthz", headers=headers).status_code == 200


def test_with_the_token_all_is_as_it_is_without_one_set(receiver: ReceiverAt) -> None:
    assert "examrelay_up 1.0" in receiver.call("GET", "/metrics", headers=BEARER).text
    told = receiver.call("GET", "/readyz", headers=BEARER)
    assert (told.status_code, "no worker is running" in told.json()["checks"]["workers"]) == (503, True)


def test_an_attack_costs_redis_no_call_and_keeps_no_delivery_out(receiver: ReceiverAt) -> None:
    """Each second the receiver looks at Redis, attacked or not, and notes the refusals of that second in one call."""
    attackers = [threading.Thread(target=attack, args=(receiver.stack.port,)) for _ in range(ATTACKERS)]
    receiver.client.config_resetstat()
    began = time.monotonic()
    for attacker in attackers:
        attacker.start()
    slowest = max(delivered(receiver, f"dlv-{number}") for number in range(GOOD))
    assert receiver.post(b" " * (REFUSED_ABOVE + 1)).status_code == 413
    for attacker in attackers:
        attacker.join()
    seconds, spent = time.monotonic() - began, calls(receiver)
    assert slowest < 1
    assert spent.get("lpush", 0) <= SOURCES * (seconds + 1)
    assert {name: count for name, count in spent.items() if count > 2 * GOOD + 4 * (seconds + 1)} == {}
    assert ATTACKERS * len(REFUSED) * TIMES * TOGETHER > 5 * sum(spent.values()), "else it shows nothing"
    last = receiver.post(b"{}", headers={"Content-Encoding": "zip"})
    assert last.status_code == 415
    wait_until(lambda: " 415 " in (refusals(receiver) or [""])[0], 5, "the last refusal")
    assert len(refusals(receiver)) == len(refusals(receiver, Source.DRILLSTER)) == 50


def test_what_was_refused_in_the_last_second_is_noted_before_the_end(tmp_path_factory: pytest.TempPathFactory) -> None:
    with receiver_at(tmp_path_factory.mktemp("ending")) as receiver:
        assert receiver.call("POST", "/v1/acme/certiverse", b"{}").status_code == 401
        receiver.stack.end("web", signal.SIGTERM)
        assert len(refusals(receiver)) == 1


def attack(port: int) -> None:
    """Send all of REFUSED, many at a time on one connection, and count the answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sender:
        answers = sender.makefile("rb")
        for line, headers, status in REFUSED * TIMES:
            request = f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{headers}\r\n"
            sender.sendall(request.encode() * TOGETHER)
            for _ in range(TOGETHER):
                assert answers.readline().split()[1] == str(status).encode()
                length = 0
                while (header := answers.readline().strip().lower()) != b"":
                    length = int(header.split()[1]) if header.startswith(b"content-length:") else length
                answers.read(length)


def delivered(receiver: ReceiverAt, name: str) -> float:
    """How many seconds a good delivery takes."""
    began = time.monotonic()
    assert receiver.post(certiverse(name)).status_code == 202
    return time.monotonic() - began


def calls(receiver: ReceiverAt) -> dict[str, Any]:
    """How often Redis was asked for what, since this was last reset."""
    found: Any = receiver.client.info("commandstats")
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in found.items()}


def refusals(receiver: ReceiverAt, source: Source = Source.CERTIVERSE) -> list[str]:
    return queries.refusals(receiver.client, "acme", source)
