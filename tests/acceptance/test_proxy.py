"""`deploy/nginx.conf` before a real receiver. `external`: needs nginx."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from sandbox.control import Sandbox
from tests.acceptance.stack import Stack, stack_at
from tests.events import certiverse
from tests.running import ROOT, free_port, wait_until
from tests.tenants import ENVIRON
from tests.tls import Authority

pytestmark = [pytest.mark.external, pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")]
SENDER = ("certiverse", ENVIRON["ACME_CERTIVERSE"])
MEBIBYTE = 2**20


class Proxy:
    """nginx with the file that we ship; only its paths, ports and names are this machine's."""

    def __init__(self, folder: Path, receiver: int) -> None:
        self.folder = folder
        authority = Authority(folder, "authority")
        certificate, key = authority.sign("proxy", "127.0.0.1")
        self.trusted, port = str(authority.file), free_port()
        self.url = f"https://127.0.0.1:{port}"
        text = (ROOT / "deploy/nginx.conf").read_text()
        for what, here in {
            r"(ssl_certificate) .*;": rf"\1 {certificate};",
            r"(ssl_certificate_key) .*;": rf"\1 {key};",
            r"/run/|/var/log/nginx/": f"{folder}/",
            r"listen 443": f"listen 127.0.0.1:{port}",
            r"server_name results.example.org": "server_name 127.0.0.1",
            r"server 127.0.0.1:8000": f"server 127.0.0.1:{receiver}",
            r"http \{": "http { "
            + "".join(f"{name}_temp_path {folder}/{name}; " for name in ("proxy", "fastcgi", "uwsgi", "scgi")),
        }.items():
            text, count = re.subn(what, here, text)
            assert count, what
        self.file = folder / "nginx.conf"
        self.file.write_text(text)

    def run(self, *more: str) -> "subprocess.Popen[str]":
        arguments = ["nginx", "-p", str(self.folder), "-c", str(self.file), *more]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def ask(self, method: str, path: str, **more: object) -> requests.Response:
        return requests.request(method, self.url + path, verify=self.trusted, timeout=30, **more)  # type: ignore[arg-type]


@pytest.fixture
def stack(rhythm: Sandbox, tmp_path: Path) -> Iterator[Stack]:
    with stack_at(tmp_path, rhythm) as running:
        running.start("web")
        yield running


@pytest.fixture
def proxy(stack: Stack, tmp_path: Path) -> Iterator[Proxy]:
    made = Proxy(tmp_path, stack.port)
    tried = made.run("-t")
    told, _ = tried.communicate(timeout=20)
    assert tried.returncode == 0, told
    assert "[warn]" not in told, told
    # As root it would become somebody who may not enter the folders of a test.
    running = made.run("-g", "daemon off; user root;" if os.geteuid() == 0 else "daemon off;")
    try:
        wait_until(lambda: made.ask("GET", "/healthz").ok, 10, "the proxy")
        yield made
    finally:
        running.terminate()
        running.communicate(timeout=20)


def test_deliveries_go_through_and_nothing_that_tells_of_the_inside(proxy: Proxy, stack: Stack) -> None:
    body = certiverse("dlv-1", email="canary@example.org")
    answer = proxy.ask("POST", "/v1/acme/certiverse?token=canary", data=body, auth=SENDER)
    assert (answer.status_code, answer.json()["duplicate"]) == (202, False)
    assert proxy.ask("POST", "/v1/acme/certiverse", data=body).status_code == 401
    for path in ("/metrics", "/readyz", "/openapi.json", "/"):
        assert proxy.ask("GET", path).status_code == 404, path
    for size, status in ((3 * MEBIBYTE, 202), (20 * MEBIBYTE + 1, 413)):
        answer = proxy.ask("POST", "/v1/acme/certiverse", data=b"[" + b" " * (size - 2) + b"]", auth=SENDER)
        assert answer.status_code == status
        assert answer.headers["Content-Type"].startswith("application/"), "the receiver's own words"
    assert stack.counts()["accepted"] == 2
    stack.valkey.stop()
    answer = proxy.ask("POST", "/v1/acme/certiverse", data=body, auth=SENDER)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert (proxy.folder / "examrelay.log").stat().st_size > 0
    for log in ("examrelay.log", "error.log"):
        assert "canary" not in (proxy.folder / log).read_text()
