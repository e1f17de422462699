"""The door under strain: many at once, senders who never finish, a Redis that hangs, fills up or goes away."""

import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from tests.events import certiverse
from tests.running import wait_until
from tests.senders import DoorAt, door_at


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorAt]:
    """One door for all tests here."""
    with door_at(tmp_path_factory.mktemp("door")) as built:
        yield built


@pytest.fixture
def door(running: DoorAt) -> DoorAt:
    """The door, with nothing on the books."""
    running.client.flushall()
    return running


def test_many_at_once_are_all_accepted(door: DoorAt) -> None:
    head = "POST /v1/acme/certiverse HTTP/1.1\r\nHost: x\r\nAuthorization: Basic Y2VydGl2ZXJzZTpzM2NyZXQ=\r\n"
    head += "Content-Length: 5\r\nConnection: close\r\n\r\n"
    senders = [socket.create_connection(("127.0.0.1", door.stack.port), timeout=20) for _ in range(400)]
    for number, sender in enumerate(senders):
        sender.sendall(f"{head}{number:04}".encode())
    for sender in senders:
        sender.sendall(b" ")  # what each request still lacked
    answers = [sender.makefile("rb").readline() for sender in senders]
    for sender in senders:
        sender.close()
    assert set(answers) == {b"HTTP/1.1 202 Accepted\r\n"}
    assert door.accepted() == 400


def test_senders_who_hang_up_before_the_answer_are_no_bug_of_ours(door: DoorAt) -> None:
    request = "POST /v1/acme/certiverse HTTP/1.1\r\nHost: x\r\nAuthorization: Basic Y2VydGl2ZXJzZTpzM2NyZXQ=\r\n"
    request += "Content-Length: 2\r\n\r\n{}"
    answered = False
    for number in range(600):
        with socket.create_connection(("127.0.0.1", door.stack.port)) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
            sender.sendall((request * 2).encode())
            time.sleep(number % 30 / 10_000)  # at every moment of the answer
        answered = answered or "answer.unheard" in door.stack.log("web").read_text()
    assert answered, "it was met"
    assert "bug.caught" not in door.stack.log("web").read_text()
    assert door.call("GET", "/healthz").status_code == 200


def test_senders_who_never_finish_and_endless_headers_keep_nobody_else_out(door: DoorAt) -> None:
    slow = [socket.create_connection(("127.0.0.1", door.stack.port)) for _ in range(200)]
    try:
        for one in slow:
            one.sendall(b"POST /v1/acme/certiverse HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        began = time.monotonic()
        assert door.post(certiverse()).status_code == 202
        assert time.monotonic() - began < 2
    finally:
        for one in slow:
            one.close()
    assert door.post(certiverse(), headers={"X-Long": "x" * 60_000}).status_code == 202
    assert door.accepted() == 1


def test_while_redis_hangs_or_is_full_the_answer_is_503_within_a_second_and_then_all_is_well(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with door_at(tmp_path_factory.mktemp("bad-day")) as door:
        body = certiverse()
        assert door.post(body).status_code == 202
        door.stack.valkey.pause()
        _refused_in_time(door, body)
        door.stack.valkey.resume()
        wait_until(lambda: door.post(body).status_code == 202, 10, "an answer")
        used = door.client.info("memory")["used_memory"]
        door.client.config_set("maxmemory", int(used / 0.9))
        wait_until(lambda: door.post(body).status_code == 503, 10, "a full Redis")
        _refused_in_time(door, body)
        door.client.config_set("maxmemory", 0)
        wait_until(lambda: door.post(body).status_code == 202, 10, "an answer")
        door.stack.valkey.stop(signal.SIGKILL)
        _refused_in_time(door, body)
        door.stack.valkey.start()
        wait_until(lambda: door.post(body).json().get("duplicate"), 10, "an answer")


def _refused_in_time(door: DoorAt, body: bytes) -> None:
    answers: list[tuple[int, str, float]] = []

    def post() -> None:
        began = time.monotonic()
        answer = DoorAt(door.stack).post(body)
        answers.append((answer.status_code, answer.headers.get("Retry-After", ""), time.monotonic() - began))

    senders = [threading.Thread(target=post) for _ in range(10)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert {(status, later) for status, later, _ in answers} == {(503, "5")}
    assert max(seconds for _, _, seconds in answers) < 1.3  # a second, and ten threads of this test
