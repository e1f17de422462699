"""IPv6 everywhere: the receiver's HOST, REDIS_URL, Rhythm's url, the command's own way to the receiver."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from sandbox.control import Sandbox
from schemas.event import EventState
from tasks.process import process_tenant
from tests.acceptance.stack import Stack, stack_at
from tests.events import certiverse, registration
from tests.pipeline import ORG
from tests.running import Valkey
from tests.tls import Authority, tls_front
from worker.bootstrap import build
from worker.cli.app import app
from worker.errors import ConfigurationError
from worker.settings import load_settings
from worker.sockets import listen, url_of


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


def answers(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
        client.settimeout(2)
        return client.connect_ex((host, port)) == 0


@pytest.mark.parametrize(
    ("host", "own", "by"),
    [
        ("", "http://127.0.0.1:PORT", {"127.0.0.1"}),
        ("127.0.0.1", "http://127.0.0.1:PORT", {"127.0.0.1"}),
        ("::1", "http://[::1]:PORT", {"::1"}),
        ("::", "http://[::1]:PORT", {"::1", "127.0.0.1"}),
        ("localhost", "http://localhost:PORT", None),
    ],
)
def test_a_server_answers_where_its_host_says(host: str, own: str, by: set[str] | None) -> None:
    with listen(host, 0, "HOST and PORT") as listening:
        port = listening.getsockname()[1]
        assert url_of(host, port) == own.replace("PORT", str(port))
        if by is not None:
            assert {one for one in ("127.0.0.1", "::1") if answers(one, port)} == by
        with pytest.raises(ConfigurationError, match=r"cannot be had .*Set HOST and PORT"):
            listen(host, port, "HOST and PORT")


@pytest.mark.parametrize("host", ["no such host", "192.0.2.1", "2001:db8::1", "[::1]"])
def test_an_address_that_is_not_of_this_machine_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be had .*Set HOST and PORT"):
        listen(host, 0, "HOST and PORT")


@pytest.fixture
def stack(rhythm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A receiver on ::1 alone, its Redis there, and Rhythm behind TLS there."""
    rhythm.seed(ORG, [registration()])
    authority = Authority(tmp_path, "ours")
    certificate = authority.sign("rhythm", "::1")
    with tls_front(urlsplit(rhythm.url).port or 0, certificate, host="::1") as front:
        behind = Sandbox(f"https://[::1]:{front.port}")
        valkey = Valkey(bind="127.0.0.1 ::1")
        with stack_at(tmp_path, behind, {"rhythm": f'ca_file = "{authority.file}"'}, valkey) as stack:
            stack.environ |= {"HOST": "::1", "REDIS_URL": f"redis://[::1]:{valkey.port}/0"}
            for name, value in stack.environ.items():
                monkeypatch.setenv(name, value)
            stack.url = f"http://[::1]:{stack.port}"
            stack.start("web")
            yield stack


def test_a_result_goes_all_the_way_over_ipv6(stack: Stack, rhythm: Sandbox) -> None:
    (id,) = stack.deliver([certiverse()])
    assert not answers("127.0.0.1", stack.port)
    with closing(build(load_settings(), patient=False)) as services:
        process_tenant(services, "acme")
    assert stack.event(id).state is EventState.SYNCED
    assert rhythm.counts()["writes"] == 1
    sent = CliRunner().invoke(app, ["send", "--tenant", "acme", "--sample", "certiverse", "--json"])
    assert json.loads(sent.stdout)[0]["status"] == 202, sent.output
