"""docs/sending.md: every block on the page, run as it stands against a receiver and a worker set up as it says."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.stack import Stack, stack_at
from tests.events import certiverse
from tests.running import ROOT, wait_until
from tests.senders import NOWHERE, WHSEC
from worker.ledger import strays
from worker.queues import RECEIVE_QUEUE, TAKEN
from worker.receiver.openapi import OPENAPI

PAGE = (ROOT / "docs" / "sending.md").read_text()
SECRETS = {
    "ACME_CERTIVERSE_TOKEN": "t0ken",
    "ACME_CERTIVERSE_KEY": "k3y",
    "ACME_CERTIVERSE_SIGNING": WHSEC,
    "ACME_DRILLSTER": "dr1llster",
    "ACME_PROV_KEY": "MARKED-k3y",
    "ACME_PROV_SECRET": "MARKED-s3cret",
}


class Block(NamedTuple):
    """A fenced block, its language, and the heading that it stands under."""

    language: str
    heading: str
    code: str

    def __str__(self) -> str:
        return f"{self.language} under {self.heading}"


def blocks() -> list[Block]:
    """All of the page's, in order."""
    found, heading = [], ""
    for part in re.finditer(r"^#+ ([^\n]+)$|^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        heading = part[1] or heading
        if part[3]:
            found.append(Block(part[2], heading, part[3]))
    return found


def of(language: str, says: str = "") -> list[Block]:
    """Those in a language that say something."""
    return [one for one in blocks() if one.language == language and says in one.code]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A receiver and a worker, whose sources are those of the page."""
    folder = tmp_path_factory.mktemp("sending")
    with stack_at(folder, NOWHERE, **SECRETS) as stack:
        config = folder / "examrelay.toml"
        before, sources, rest = config.read_text().partition("[tenants.acme.sources.certiverse]")
        exams = rest[rest.index("[[tenants.acme.exams]]") :]
        assert sources
        config.write_text("\n".join([before, *(one.code for one in of("toml")), exams]))
        (folder / "result.json").write_bytes(certiverse())
        (folder / "drillster.json").write_bytes(
            (ROOT / "tests" / "samples" / "drillster" / "anonymous.json").read_bytes()
        )
        stack.start("web", "worker")
        yield stack


@pytest.fixture
def stack(running: Stack) -> Stack:
    """The same with nothing recorded."""
    wait_until(lambda: not running.client.exists("unacked", "examrelay", RECEIVE_QUEUE, TAKEN), 20, "empty queues")
    running.client.delete("-", *running.client.keys("er:*"))
    return running


def run(stack: Stack, command: list[str], *, ours: bool = False) -> str:
    """What a block prints. `ours`: it may import examrelay."""
    plain = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    given = {name: stack.environ[name] for name in ("REDIS_URL", "ACME_CERTIVERSE", *SECRETS)} | {"RECEIVER": stack.url}
    own = {name: stack.environ[name] for name in ("EXAMRELAY_CONFIG", "ACME_RHYTHM", "ACME_READ")}
    environ = plain | given | (own | {"PYTHONPATH": str(ROOT)} if ours else {})
    done = subprocess.run(command, cwd=stack.folder, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def python(stack: Stack, block: Block, *, ours: bool = False) -> str:
    return run(stack, [sys.executable, "-c", block.code], ours=ours)


def accepted(stack: Stack) -> int:
    return stack.counts().get("accepted", 0)


NEEDS_CURL = [pytest.mark.external, pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")]


@pytest.mark.parametrize(
    "block",
    [*(pytest.param(one, marks=NEEDS_CURL) for one in of("bash")), *of("python", "requests.post")],
    ids=str,
)
def test_a_block_that_posts_is_accepted(stack: Stack, block: Block) -> None:
    shell = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    told = run(stack, [*shell, block.code])
    posts = block.code.count("\npost ") or 1
    assert len(re.findall(r"evt_[a-z2-7]{26}", told)) == posts, told
    assert accepted(stack) == posts
    kept = b"".join(stack.client.dump(key) or b"" for key in stack.client.keys("er:*"))
    assert b"MARKED" not in kept


@pytest.mark.external
@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_block_for_node_is_accepted_and_is_the_same_event(stack: Stack, tmp_path: Path) -> None:
    (block,) = of("javascript")
    script = tmp_path / "send.mjs"
    script.write_text(block.code)
    answer = json.loads(run(stack, ["node", str(script)]))
    assert stack.post(certiverse()).json() == answer | {"duplicate": True, "state": stack.event(answer["id"]).state}


def test_the_block_that_enqueues_is_the_same_event_as_at_the_receiver(stack: Stack) -> None:
    (block,) = of("python", "enqueue")
    id, state, duplicate, answer = python(stack, block, ours=True).split()
    assert (state, duplicate, answer) == ("received", "False", "202")
    assert stack.post(certiverse()).json()["id"] == id


def test_the_block_that_sends_a_task_is_the_same_event_once_it_has_run(stack: Stack) -> None:
    (block,) = of("python", "send_task")
    assert python(stack, block) == ""
    wait_until(lambda: accepted(stack) == 1, 20, "the event")
    assert stack.post(certiverse()).json()["duplicate"] is True


def test_the_block_that_reads_strays_shows_what_they_hold(stack: Stack) -> None:
    (sends,), (reads,) = of("python", "send_task"), of("python", "strays.content")
    python(stack, sends._replace(code=sends.code.replace('"acme"', '"nobody"')))
    wait_until(lambda: strays.page(stack.client)[0], 20, "the stray")
    told = python(stack, reads, ours=True)
    assert told.startswith("stray_")
    assert "there is no such tenant; there are: acme" in told
    assert "dlv-1" in told


def test_no_block_of_the_page_is_left_out() -> None:
    told = [*of("toml"), *of("bash"), *of("javascript"), *of("python", "requests.post")]
    told += [*of("python", "enqueue("), *of("python", "send_task"), *of("python", "strays.content")]
    assert sorted(told) == sorted(blocks())
    assert len(told) == 12


def test_the_page_explains_every_answer_of_the_contract_and_no_other() -> None:
    table = PAGE.partition("### What each answer means")[2].partition("###")[0]
    explained = {line.split("|")[1].strip() for line in table.splitlines() if re.match(r"\| \d", line)}
    documented = OPENAPI["paths"]["/v1/{tenant}/{source}"]["post"]["responses"].keys()
    assert explained == documented | {"405"}
