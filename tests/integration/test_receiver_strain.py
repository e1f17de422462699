"""The receiver under strain: many at once, senders who hang up, a Redis that hangs, fills up or goes away."""

import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from tests.events import certiverse
from tests.running import wait_until
from tests.senders import ReceiverAt, receiver_at


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverAt]:
    """One receiver for all tests here."""
    with receiver_at(tmp_path_factory.mktemp("receiver")) as built:
        yield built


@pytest.fixture
def receiver(running: ReceiverAt) -> ReceiverAt:
    """The receiver, with an empty ledger."""
    running.client.flushall()
    return running


def test_many_at_once_are_all_accepted(receiver: ReceiverAt) -> None:
    head = "POST /v1/acme/certiverse HTTP/1.1\r\nHost: x\r\nAuthorization: Basic Y2VydGl2ZXJzZTpzM2NyZXQ=\r\n"
    head += "Content-Length: 5\r\nConnection: close\r\n\r\n"
    senders = [socket.create_connection(("127.0.0.1", receiver.stack.port), timeout=20) for _ in range(400)]
    for number, sender in enumerate(senders):
        sender.sendall(f"{head}{number:04}".encode())
    for sender in senders:
        sender.sendall(b" ")  # what each request still lacked
    answers = [sender.makefile("rb").readline() for sender in senders]
    for sender in senders:
        sender.close()
    assert set(answers) == {b"HTTP/1.1 202 Accepted\r\n"}
    assert receiver.accepted() == 400


def test_senders_who_hang_up_before_the_answer_are_no_bug_of_ours(receiver: ReceiverAt) -> None:
    request = "POST /v1/acme/certiverse HTTP/1.1\r\nHost: x\r\nAuthorization: Basic Y2VydGl2ZXJzZTpzM2NyZXQ=\r\n"
    request += "Content-Length: 2\r\n\r\n{}"
    answered = False
    for number in range(600):
        with socket.create_connection(("127.0.0.1", receiver.stack.port)) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
            sender.sendall((request * 2).encode())
            time.sleep(number % 30 / 10_000)  # at every moment of the answer
        answered = answered or "answer.unheard" in receiver.stack.log("web").read_text()
    assert answered, "it was met"
    assert "bug.caught" not in receiver.stack.log("web").read_text()
    assert receiver.call("GET", "/healthz").status_code == 200


def test_a_long_header_is_no_reason_to_refuse(receiver: ReceiverAt) -> None:
    assert receiver.post(certiverse(), headers={"X-Long": "x" * 60_000}).status_code == 202


def test_while_redis_hangs_or_is_full_the_answer_is_503_within_a_second_and_then_all_is_well(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with receiver_at(tmp_path_factory.mktemp("bad-day")) as receiver:
        body = certiverse()
        assert receiver.post(body).status_code == 202
        receiver.stack.valkey.pause()
        _refused_in_time(receiver, body)
        receiver.stack.valkey.resume()
        wait_until(lambda: receiver.post(body).status_code == 202, 10, "an answer")
        used = receiver.client.info("memory")["used_memory"]
        receiver.client.config_set("maxmemory", int(used / 0.9))
        wait_until(lambda: receiver.post(body).status_code == 503, 10, "a full Redis")
        _refused_in_time(receiver, body)
        receiver.client.config_set("maxmemory", 0)
        wait_until(lambda: receiver.post(body).status_code == 202, 10, "an answer")
        receiver.stack.valkey.stop(signal.SIGKILL)
        _refused_in_time(receiver, body)
        receiver.stack.valkey.start()
        wait_until(lambda: receiver.post(body).json().get("duplicate"), 10, "an answer")


def _refused_in_time(receiver: ReceiverAt, body: bytes) -> None:
    answers: list[tuple[int, str, float]] = []

    def post() -> None:
        began = time.monotonic()
        answer = ReceiverAt(receiver.stack).post(body)
        answers.append((answer.status_code, answer.headers.get("Retry-After", ""), time.monotonic() - began))

    senders = [threading.Thread(target=post) for _ in range(10)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert {(status, later) for status, later, _ in answers} == {(503, "5")}
    assert max(seconds for _, _, seconds in answers) < 1.3  # a second, and ten threads of this test
