"""What `deploy/` ships agrees with the Procfile, the settings and the tasks; and what can be run of it is run."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path

import pytest
import redis

from tests.running import ROOT, free_port, process, wait_until
from worker.local.commands import ARGUMENTS
from worker.local.valkey import binary
from worker.queues import OTHER_TASK_SECONDS, TASK_SECONDS
from worker.receiver.body import _STRANGER_SECONDS, REFUSED_ABOVE
from worker.settings import Settings

DEPLOY = ROOT / "deploy"
SYSTEMD = DEPLOY / "systemd"
COMMON = SYSTEMD / "examrelay-.service.d" / "common.conf"
COMPOSE = (DEPLOY / "compose.yaml").read_text()
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
NGINX = (DEPLOY / "nginx.conf").read_text()
PROCFILE = {
    name: shlex.split(line)
    for name, _, line in (line.partition(": ") for line in (ROOT / "Procfile").read_text().splitlines())
}
LONGEST_TASK = max(TASK_SECONDS, OTHER_TASK_SECONDS)


def unit(path: Path) -> RawConfigParser:
    """A unit file. Of a key that stands twice, the last."""
    parsed = RawConfigParser(strict=False, comment_prefixes=("#",), inline_comment_prefixes=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(path)
    return parsed


def units() -> dict[str, RawConfigParser]:
    """By the name that the process has in the Procfile."""
    return {re.split("[@.]", path.name)[0].removeprefix("examrelay-"): unit(path) for path in SYSTEMD.glob("*.service")}


def test_the_units_start_what_the_procfile_says() -> None:
    started = {name: shlex.split(one["Service"]["ExecStart"]) for name, one in units().items()}
    # `%%` is a percent sign, `%i` what stands behind the @ of the unit's name: 1, 2, ...
    shown = {
        name: [word.replace("%i", "").replace("%%", "%").removeprefix("/opt/examrelay/bin/") for word in words]
        for name, words in started.items()
    }
    assert shown == PROCFILE
    assert all(words[0].startswith("/opt/examrelay/bin/") for words in started.values())
    assert all(one["Install"]["WantedBy"] == "examrelay.target" for one in units().values())


def test_a_unit_and_a_container_that_are_told_to_end_may_finish_their_task() -> None:
    for name in ("worker", "sweeper"):
        assert int(units()[name]["Service"]["TimeoutStopSec"]) > LONGEST_TASK
    common = unit(COMMON)["Service"]
    assert (common["KillMode"], common["KillSignal"]) == ("mixed", "SIGTERM"), "children that get it too end at once"
    (grace,) = re.findall(r"^  stop_grace_period: (\d+)s", COMPOSE, re.MULTILINE)
    assert int(grace) > LONGEST_TASK


def test_the_units_may_write_nowhere_and_become_nobody() -> None:
    common = unit(COMMON)["Service"]
    wanted = {"ProtectSystem": "strict", "NoNewPrivileges": "yes", "PrivateTmp": "yes", "CapabilityBoundingSet": ""}
    assert wanted.items() <= dict(common).items()
    assert common["User"] == "examrelay"
    assert "ReadWritePaths" not in common
    assert re.search("^u examrelay ", (SYSTEMD / "examrelay.sysusers.conf").read_text(), re.MULTILINE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with the units, and something where their programs are."""
    shutil.copytree(SYSTEMD, tmp_path / "etc/systemd/system")
    for path in (tmp_path / "etc/systemd/system").rglob("*.*"):
        if path.is_file():
            path.write_text(path.read_text().replace("/opt/examrelay/bin/", f"{Path('/bin/true').resolve().parent}/"))
            path.write_text(re.sub(r"(?m)^(ExecStart=\S+/)\S+", r"\1true", path.read_text()))
    return tmp_path


@pytest.mark.external
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units(root: Path) -> None:
    places = sorted((root / "etc/systemd/system").glob("examrelay*.service"))
    done = subprocess.run(["systemd-analyze", "verify", *places], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for path in places:
        name = path.with_name(path.name.replace("@", "@1"))
        rated = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", name],
            capture_output=True,
            text=True,
        )
        assert rated.returncode == 0, rated.stdout[-200:] + rated.stderr
    wanted = ["examrelay.target", "examrelay-web", "examrelay-worker@1", "examrelay-worker@2"]
    subprocess.run(["systemctl", f"--root={root}", "enable", *wanted], check=True, capture_output=True)
    linked = {path.name for path in (root / "etc/systemd/system/examrelay.target.wants").iterdir()}
    assert linked == {"examrelay-web.service", "examrelay-worker@1.service", "examrelay-worker@2.service"}


def services() -> dict[str, str]:
    """The services of the compose file: name -> its lines."""
    part = COMPOSE.partition("\nservices:\n")[2].partition("\nsecrets:\n")[0]
    return dict(re.findall(r"^  (\w+):\n((?:    .*\n|\n)+)", part, re.MULTILINE))


def command_of(lines: str) -> list[str]:
    (found,) = re.findall(r"^    command: (\[.*\])$", lines, re.MULTILINE)
    return [str(word) for word in json.loads(found)]


def test_the_containers_run_what_the_procfile_says() -> None:
    commands = {name: command_of(lines) for name, lines in services().items() if name != "valkey"}
    # In a container of its own, Flower on loopback would be reached by nobody.
    commands["flower"] = [word.replace("--address=0.0.0.0", "--address=127.0.0.1") for word in commands["flower"]]
    assert commands == PROCFILE
    published = re.findall(r"^    ports: (\[.*\])", COMPOSE, re.MULTILINE)
    assert all(port.startswith("127.0.0.1:") for ports in published for port in json.loads(ports))


def test_what_the_containers_mount_is_shipped_or_is_a_secret() -> None:
    mounted = set(re.findall(r"\"\./([^:\"]+):", COMPOSE))
    assert mounted == {"examrelay.toml", "redis.conf"}
    assert (DEPLOY / "redis.conf").exists(), "the other is the operator's"
    declared = dict(re.findall(r"^  (\w+): \{ file: \./secrets/(\w+) \}", COMPOSE, re.MULTILINE))
    used = {name for names in re.findall(r"secrets: \[(.*)\]", COMPOSE) for name in names.split(", ")}
    assert declared == {name: name for name in used}
    assert set(re.findall(r"/run/secrets/(\w+)", COMPOSE)) <= used
    ignored = subprocess.run(
        ["git", "check-ignore", "deploy/secrets/redis_url", "deploy/examrelay.toml"], cwd=ROOT, capture_output=True
    )
    assert len(ignored.stdout.splitlines()) == 2, "no secret gets into git"


def test_no_file_names_a_registry() -> None:
    images = re.findall(r"^FROM (\S+)", CONTAINERFILE, re.MULTILINE) + re.findall(r"image: (\S+)", COMPOSE)
    assert len(images) == 4
    assert [image for image in images if "." in image.partition("/")[0].partition(":")[0]] == []


def test_all_that_the_image_is_made_of_is_there_and_handed_to_the_builder() -> None:
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--from)(.*)", CONTAINERFILE, re.MULTILINE)]
    names = {name for words in copied for name in words}
    assert {"schemas", "worker", "tasks", "sandbox", "requirements.lock"} <= names
    assert [name for name in names if not (ROOT / name).exists()] == []
    allowed = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert allowed == names


def test_secrets_come_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "redis_url"
    secret.write_text("redis://:p%20w@valkey:6379/0\n")
    done = subprocess.run(
        [DEPLOY / "with-secrets", "sh", "-c", 'printf %s "$REDIS_URL|${SENTRY_DSN-none}|$1"', "sh", "a b"],
        env={"REDIS_URL_FILE": str(secret), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "redis://:p%20w@valkey:6379/0|none|a b"
    secret.unlink()
    gone = subprocess.run([DEPLOY / "with-secrets", "true"], env={"REDIS_URL_FILE": str(secret)}, capture_output=True)
    assert gone.returncode != 0, "rather none than a process without its secret"
    named = set(re.findall(r"([A-Z_]+)_FILE:", COMPOSE))
    assert named <= set(re.findall("[A-Z_]+", (DEPLOY / "with-secrets").read_text()))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The Valkey of the compose file, by its own command, with its paths in a folder."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/redis_password").write_text("p4ss\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/valkey-server").symlink_to(binary())
    shell, port = command_of(services()["valkey"])[2], free_port()
    for there, here in {
        "$$": "$",
        "/etc/valkey": DEPLOY,
        "/run/secrets": tmp_path / "secrets",
        "dir /data": f"dir {tmp_path}",
        "bind * -::*": f"bind 127.0.0.1'; echo 'port {port}",
    }.items():
        assert there in shell, there
        shell = shell.replace(there, str(here))
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    with process("-c", f"import os; os.execvp('sh', ['sh', '-c', {shell!r}])", environ={"PATH": path}):
        yield f"redis://:p4ss@127.0.0.1:{port}/0"


def test_the_containers_redis_is_durable_and_wants_the_password(server: str) -> None:
    with redis.Redis.from_url(server) as client:
        wait_until(client.ping, 10, "Valkey")
        assert client.config_get("append*")["appendfsync"] == "always"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with redis.Redis.from_url(server.replace("p4ss", "wrong")) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def number(name: str, part: str = NGINX) -> int:
    """A directive's number, in seconds or bytes."""
    (found, size) = re.findall(rf"^\s*{name} (\d+)([smk]?);", part, re.MULTILINE)[0]
    return int(found) * {"s": 1, "": 1, "k": 2**10, "m": 2**20}[size]


def test_the_proxys_numbers_fit_ours() -> None:
    receivers = NGINX.partition("upstream receivers {")[2].partition("}")[0]
    delivery = NGINX.partition("location /v1/ {")[2].partition("}")[0]
    assert number("keepalive_timeout", receivers) < Settings.model_fields["keep_alive_seconds"].default
    assert number("client_max_body_size") > REFUSED_ABOVE, "the receiver says itself what it refuses"
    assert number("proxy_read_timeout", delivery) > _STRANGER_SECONDS, "and how long a body may take"
    assert set(re.findall(r"server 127\.0\.0\.1:(\d+);", NGINX)) == {
        str(Settings.model_fields[name].default) for name in ("port", "console_port")
    }


def test_the_proxy_passes_deliveries_and_nothing_that_tells_of_the_inside() -> None:
    passed = re.findall(r"location (.*) \{\n\s*proxy_pass http://receivers;", NGINX)
    assert passed == ["/v1/", "= /healthz"]
    assert "location / { return 404; }" in NGINX
    (logged,) = re.findall(r"log_format \w+ '(.*)';", NGINX)
    # $request and $request_uri have the query; $request_body the result; $http_... the credentials.
    assert not re.search(r"\$(request|request_uri|request_body|args|query_string|http_\w+|cookie_\w+)\b", logged)


def test_every_process_has_its_unit_and_its_container() -> None:
    assert units().keys() == ARGUMENTS.keys() == services().keys() - {"valkey"}
