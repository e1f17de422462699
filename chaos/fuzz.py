"""Fuzzed bodies through the real processes: `python -m chaos.fuzz --bodies 1000000`; exit code 0 when all held.

In rounds, each with a ledger of its own: bodies made from all samples are sent to the receiver over many connections,
as they are or packed with gzip, by each platform's paths. Real workers bring them to where they stop. Then: no answer
was a 5xx, each delivery that may be accepted was, each one accepted is in the ledger, nothing is on its way, no reason
is a bug of ours, no process died or told of a bug, and `audit` accounts for all.
"""

import argparse
import json
import random
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any, Final

import redis

from chaos.judged import interruptible
from chaos.mutations import Mutator, Sample, packed, sample
from sandbox.control import start
from tests import samples
from tests.acceptance.stack import Stack, stack_at
from tests.commands import command
from tests.pipeline import ORG
from tests.running import ROOT, wait_until
from worker.ledger import queries

#: `acme` has the samples' exams, and what fits goes to its Rhythm. `beta` has none: most bodies go there. `gamma` is
#: known by keys in the body.
TENANTS: Final = ("acme", "beta", "gamma")
_TENANT: Final = """
[tenants.{name}]
read_credentials = {{ kind = "bearer", token = "env:ACME_READ" }}
[tenants.{name}.rhythm]
url = "{url}"
tenant_id = "{org}"
credentials = {{ kind = "api_key", key = "env:ACME_RHYTHM" }}
"""
_SOURCE: Final = """
[tenants.{name}.sources.{source}]
credentials = [ {{ kind = "basic", user = "certiverse", password = "env:ACME_CERTIVERSE" }} ]
"""
_KEYED: Final = """
[tenants.gamma.sources.{source}]
credentials = [ {{ kind = "body-keys", keys = {{ apiKey = "env:ACME_READ", secretKey = "env:ACME_CERTIVERSE" }} }} ]
"""
_KEYS: Final = b'{"apiKey": "r3ad", "secretKey": "s3cret",'
_BASIC: Final = "Authorization: Basic Y2VydGl2ZXJzZTpzM2NyZXQ="
_CONNECTIONS: Final = 24
_TRIES: Final = 100
_PATHS: Final = ("", "", "", "/TEST_COMPLETED", "/T%C3%A9st", "/%00/%2F", "/../..", "/TEST_COMPLETED/e-1?x=1")


@dataclass
class Sent:
    """What was answered: how often each status, the ids accepted by tenant, and what must not have been answered."""

    statuses: Counter[int] = field(default_factory=Counter)
    ids: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in TENANTS})
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Sent") -> None:
        self.statuses += other.statuses
        self.wrong += other.wrong
        for name, ids in other.ids.items():
            self.ids[name] |= ids


def all_samples() -> list[Sample]:
    """All payloads that the tests have."""
    found = [(path.relative_to(samples.FOLDER).parts[0], path) for path in samples.valid() + samples.invalid()]
    found += [(_source_of_case(path), path) for path in sorted((ROOT / "tests" / "cases").glob("*.json"))]
    return [sample(source, path.read_bytes()) for source, path in found]


def _source_of_case(path: Path) -> str:
    text = path.read_bytes()
    return "certiverse" if b"examDelivery" in text else "drillster" if b'"test"' in text else "prov"


def send(port: int, count: int, seed: str, keep: Path) -> Sent:
    """Send so many bodies, a request on each connection at a time. A body with a wrong answer is kept in `keep`."""
    how, make, sent = random.Random(seed), Mutator(all_samples(), seed), Sent()
    with ExitStack() as ends:
        lines = [_Line(port, ends) for _ in range(min(_CONNECTIONS, count))]
        for begin in range(0, count, len(lines)):
            asked = [(line, *_request(how, *make())) for line in lines[: count - begin]]
            for line, _, request, _ in asked:
                line.send(request)
            for line, tenant, request, allowed in asked:
                answer, tries = line.answer(), 1
                while answer[0] == 503 and tries < _TRIES:  # a busy machine: sent again, as a platform does
                    sent.statuses[503] += 1
                    time.sleep(0.1)
                    line.send(request)
                    answer, tries = line.answer(), tries + 1
                _take(sent, tenant, request, allowed, *answer, keep)
    return sent


def _request(how: random.Random, source: str, body: bytes) -> tuple[str, bytes, tuple[int, ...]]:
    """For whom, the request's bytes, and what may be answered."""
    chance = how.random()
    tenant = "acme" if chance < 0.03 else "gamma" if chance < 0.15 and source != "drillster" else "beta"
    method, path = "POST", how.choice(_PATHS) if source == "drillster" else ""
    if path.count("/") == 2:
        method = "PUT"
    if tenant == "gamma":
        body = body.replace(b"{", _KEYS, 1)
    lines = [f"{method} /v1/{tenant}/{source}{path} HTTP/1.1", "Host: fuzz", _BASIC]
    if how.random() < 0.1:
        body = packed(body, how)
        lines.append("Content-Encoding: gzip")
    if how.random() < 0.2:
        lines.append("Transfer-Encoding: chunked")
        body = b"".join(_chunks(how, body))
    else:
        lines.append(f"Content-Length: {len(body)}")
    return tenant, "\r\n".join((*lines, "", "")).encode() + body, (202, 401) if tenant == "gamma" else (202,)


def _chunks(how: random.Random, body: bytes) -> Iterator[bytes]:
    size = how.choice((1 + len(body) // 3, 1 + len(body)))
    for at in range(0, len(body), size):
        piece = body[at : at + size]
        yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


class _Line:
    """A connection that stays, and is made anew when the receiver has closed it."""

    def __init__(self, port: int, ends: ExitStack) -> None:
        self._port, self._ends = port, ends
        self._open()

    def _open(self) -> None:
        self._socket = self._ends.enter_context(socket.create_connection(("127.0.0.1", self._port), timeout=20))
        self._answers: IO[bytes] = self._ends.enter_context(self._socket.makefile("rb"))

    def send(self, request: bytes) -> None:
        self._socket.sendall(request)

    def answer(self) -> tuple[int, bytes]:
        """The status and the body; 0 when the connection ended without an answer."""
        first, length, closes = self._answers.readline(), 0, False
        while line := self._answers.readline().lower().strip():
            length = int(line[15:]) if line.startswith(b"content-length:") else length
            closes = closes or line == b"connection: close"
        told = self._answers.read(length)
        if closes or not first:
            self._open()
        return int(first[9:12] or 0), told


def _take(
    sent: Sent, tenant: str, request: bytes, allowed: tuple[int, ...], status: int, told: bytes, keep: Path
) -> None:
    sent.statuses[status] += 1
    if status == 202:
        sent.ids[tenant].add(json.loads(told)["id"])
    if status not in allowed:
        kept = keep / f"answer-{status}-{sent.statuses[status]}.http"
        kept.write_bytes(request)
        sent.wrong.append(f"answered {status} {told!r}: {kept}")


def tables(url: str) -> str:
    """The tenants file beside what `write_tenants` has: all sources for `acme` and `beta`, the samples' exams."""
    documents = [json.loads(path.read_text()) for path in samples.FOLDER.glob("*/*.outcome.json")]
    codes = dict.fromkeys(code for document in documents if document for code in document.get("exam_codes", ()))
    listed = ", ".join(json.dumps(code) for code in codes if code not in ("CERT-1", "CERT-1B"))
    sources = [("acme", "drillster"), ("acme", "prov"), *(("beta", one) for one in ("certiverse", "drillster", "prov"))]
    return "".join(
        (
            f'[[tenants.acme.exams]]\nexam_id = "exam-2"\ncodes = [{listed}]\n',
            *(_TENANT.format(name=name, url=url, org=ORG) for name in TENANTS[1:]),
            *(_SOURCE.format(name=name, source=source) for name, source in sources),
            *(_KEYED.format(source=source) for source in ("certiverse", "prov")),
        )
    )


def registrations() -> list[dict[str, Any]]:
    """For everyone in the samples, so that some results are written."""
    made = []
    for path in sorted(samples.FOLDER.glob("*/*.outcome.json")):
        document = json.loads(path.read_text()) or {}
        candidate, ids = document.get("candidate", {}), document.get("registration_ids", {})
        known = {"student_id": candidate.get("student_id"), "email_address": candidate.get("email")}
        told = {name: value for name, value in known.items() if value}
        id = ids.get("eligibilityId") or f"reg-{path.name.partition('.')[0]}"
        made.append({"id": id, "exam_id": "exam-2", "status": "registered", "sys_version": 1} | told)
    return made


def play(number: int, count: int, seed: int, senders: int, folder: Path) -> tuple[Sent, Counter[str], list[str]]:
    """One round. Returns what was answered, how many events are in each state, and what did not hold."""
    folder.mkdir(parents=True, exist_ok=True)
    with start() as rhythm, stack_at(folder, rhythm, {"more": tables(rhythm.url)}, **_ENVIRON) as stack:
        rhythm.seed(ORG, registrations())
        stack.start("worker", "sweeper", "beat", "web")
        sent = Sent()
        shares = [count // senders + (one < count % senders) for one in range(senders)]
        with ProcessPoolExecutor(senders, mp_context=get_context("spawn")) as pool:
            tasks = [pool.submit(send, stack.port, share, f"{seed}.{one}", folder) for one, share in enumerate(shares)]
            for task in tasks:
                sent.add(task.result())
        wait_until(lambda: _nothing_due(stack), 900, "the end of the work")
        states = sum((Counter(queries.counts(stack.client, name)) for name in TENANTS), Counter[str]())
        return sent, states, [f"round {number}, seed {seed}: {one}" for one in (*sent.wrong, *judge(stack, sent))]


_ENVIRON: Final = {"EXAMRELAY_SWEEP_SECONDS": "1", "EXAMRELAY_LEASE_SECONDS": "30"}


def _nothing_due(stack: Stack) -> bool:
    """Whether no event is received, and each that is ready has failed and waits for its next attempt."""
    now = queries.redis_now(stack.client)
    for name in TENANTS:
        due = [queries.oldest_due(stack.client, name, state) for state in queries.DUE]
        if any(at is not None and at <= now for at in due) or stack.client.exists(f"er:{name}:slots"):
            return False
    return True


def accounted(client: "redis.Redis", sent: Sent) -> Iterator[str]:
    """What does not hold of the ledger."""
    for name in TENANTS:
        accepted = queries.counts(client, name).get("accepted", 0)
        if accepted != len(sent.ids[name]):
            yield f"{name}: {len(sent.ids[name])} were accepted, and the ledger has accepted {accepted}"
        with client.pipeline(transaction=False) as commands:
            for id in sent.ids[name]:
                commands.exists(f"er:{name}:event:{id}")
            missing = len(sent.ids[name]) - sum(commands.execute())
        if missing:
            yield f"{name}: {missing} that were accepted are not in the ledger"
        for state in queries.DUE:
            if bugs := queries.waiting_reasons(client, name, state).get("internal_error"):
                yield f"{name}: {bugs} are {state}: internal_error"


def judge(stack: Stack, sent: Sent) -> Iterator[str]:
    """What does not hold at the end of a round."""
    yield from accounted(stack.client, sent)
    audit = command(Path(stack.environ["EXAMRELAY_CONFIG"]), "audit", "--json", **_variables(stack))
    if audit.returncode:
        yield f"audit: exit code {audit.returncode}: {audit.stdout[:2000]} {audit.stderr[:500]}"
    for process, running in stack.running.items():
        if running.poll() is not None:
            yield f"{process} has ended"
        log = stack.log(process).read_text(errors="replace")
        yield from (f"{process} says {one!r}" for one in ("bug.caught", "Traceback") if one in log)


def _variables(stack: Stack) -> dict[str, str]:
    return {name: stack.environ[name] for name in ("REDIS_URL", "ACME_RHYTHM", "ACME_READ", "ACME_CERTIVERSE")}


def main() -> int:
    """Play rounds until all bodies are sent. The folder of one that fails stays."""
    parser = argparse.ArgumentParser(prog="python -m chaos.fuzz", description=__doc__)
    for name, default in (("bodies", 20_000), ("round", 50_000), ("seed", 1), ("senders", 2), ("seconds", 3600)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    interruptible()
    total, states, failed, began = Sent(), Counter[str](), list[str](), time.monotonic()
    folder, done = Path(tempfile.mkdtemp(prefix="examrelay-fuzz-")), 0
    for number in range(-(-asked.bodies // asked.round)):
        count = min(asked.round, asked.bodies - done)
        sent, found, wrong = play(number, count, asked.seed + number, asked.senders, folder / str(number))
        total.statuses += sent.statuses
        states, done, failed = states + found, done + count, failed + wrong
        seconds = time.monotonic() - began
        print(f"{done} bodies, {seconds:.0f} s, answers {dict(total.statuses)}, {len(failed)} wrong", flush=True)
        for one in wrong[:20]:
            print(f"  {one}", flush=True)
        if seconds > asked.seconds:
            break  # no round is begun after that time
    if not failed:
        shutil.rmtree(folder)
    print("\n".join(f"{name:40} {states[name]:9}" for name in sorted(states)))
    print(f"{'NOT all held: see ' + str(folder) if failed else 'all held'}: {done} bodies")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
