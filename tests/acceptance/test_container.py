"""The Containerfile, carried out without a container engine: each step in a `chroot` on a copy of this machine's files
that is thrown away, the packages fetched as the lock names them; then the image's own command, as its user, on a root
file system that is read-only. With EXAMRELAY_FULL=1, as root on Linux: it takes a minute. What is not shown: that the
image `python:3.11-slim` has what this machine has.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT, Valkey, free_port
from tests.tenants import ENVIRON, write_tenants

pytestmark = [
    pytest.mark.external,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.environ.get("EXAMRELAY_FULL") != "1" or os.geteuid() != 0 or shutil.which("unshare") is None,
        reason="needs EXAMRELAY_FULL=1, root, and a system that may mount",
    ),
]
(WORKER,) = re.findall(r'^    command: (.*"prefork".*)$', (ROOT / "deploy/compose.yaml").read_text(), re.MULTILINE)
#: Into the copy, where `python` is what the image calls so. Its folder may be in a home that others cannot enter.
ENTER = """
mount -t tmpfs none "$1" && mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay none -o lowerdir=/,upperdir="$1/up",workdir="$1/work" "$1/root"
root="$1/root"
mkdir -p "$root/checkout" && mount --rbind "$2" "$root/checkout"
mount --rbind /dev "$root/dev" && mount --rbind /proc "$root/proc"
at="$3"; while [ "$at" != / ]; do chmod o+x "$root$at"; at=$(dirname "$at"); done
exec chroot "$root" /bin/sh -eux -c "$4"
"""


def steps() -> "tuple[list[str], dict[str, str]]":
    """The lines of shell that the Containerfile is, and its last `USER`, `ENTRYPOINT`, `CMD` and `HEALTHCHECK`."""
    lines: list[str] = ["cd /"]
    said: dict[str, str] = {}
    for line in (ROOT / "deploy/Containerfile").read_text().splitlines():
        word, _, rest = line.partition(" ")
        match word:
            case "" | "#" | "EXPOSE":
                pass
            case "FROM":
                lines.append("cd /")
            case "WORKDIR":
                lines.append(f"mkdir -p {rest} && cd {rest}")
            case "RUN":
                lines.append(rest)
            case "ENV":
                lines.append(f"export {rest}")
            case "COPY" if rest.startswith("--from=build "):
                lines.append(f"test -e {rest.split()[1]}")  # one file system for both stages
            case "COPY":
                *sources, target = rest.split()
                lines += [f"cp -r /checkout/{source} {target}" for source in sources]
            case "USER" | "ENTRYPOINT" | "CMD" | "HEALTHCHECK":
                said[word] = rest
            case _:
                raise AssertionError(f"a step that this test does not know: {line}")
    return lines, said


def words(text: str) -> str:
    """A JSON list of words, for a shell."""
    return shlex.join(json.loads(text))


def test_every_step_works_and_the_command_runs_as_nobody_on_a_file_system_that_is_read_only(tmp_path: Path) -> None:
    checkout, copy = tmp_path / "checkout", tmp_path / "copy"
    copy.mkdir()
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if not name.startswith(("tests/", "bench/", "chaos/")):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    write_tenants(checkout, "http://127.0.0.1:9")
    lines, said = steps()
    uid, gid = said["USER"].split(":")
    healthy = words(re.sub(".*? CMD ", "", said["HEALTHCHECK"]))
    command = f"{words(said['ENTRYPOINT'])} {words(said['CMD'])}"
    valkey, port = Valkey().start(), free_port()
    (checkout / "redis_url").write_text(valkey.url)
    lines += [
        "mkdir -p /etc/examrelay && cp /checkout/examrelay.toml /etc/examrelay/",
        "mount -t tmpfs none /tmp && chmod 1777 /tmp",
        "mount -o remount,ro / && ! touch /opt/examrelay/x",
        f"{' '.join(f'export {name}={value};' for name, value in ENVIRON.items())} export PORT={port}",
        "export REDIS_URL_FILE=/checkout/redis_url",
        f"as='setpriv --reuid {uid} --regid {gid} --clear-groups --no-new-privs --bounding-set=-all'",
        f"! $as {healthy} 2>/dev/null",
        f"$as {command} & pid=$!",
        f"for i in $(seq 100); do if $as {healthy} 2>/dev/null; then break; fi; sleep 0.1; done",
        f"$as {healthy}",
        "grep -q '^Uid:.10001' /proc/$pid/status",
        "kill $pid; wait $pid || test $? -eq 143",
        f"$as with-secrets {words(WORKER)} >/tmp/worker 2>&1 & pid=$!",
        r"for i in $(seq 300); do if grep -q ' ready\.' /tmp/worker; then break; fi; sleep 0.1; done",
        r"cat /tmp/worker; grep -q ' ready\.' /tmp/worker; kill $pid; wait $pid",
    ]
    python = Path(sys.base_prefix) / "bin"
    try:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-eu", "-c", ENTER, "sh", copy, checkout, python, "\n".join(lines)],
            env=os.environ | {"PATH": f"{python}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
            capture_output=True,
            text=True,
            timeout=500,
        )
    finally:
        valkey.close()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Successfully installed examrelay" in done.stdout
