"""The demo: starts everything with the stand-in Rhythm, sends every scenario, and shows how each ended.

Run: `python -m sandbox.demo`. An outsider: it speaks HTTP to the receiver and the stand-in, and imports no
production code except what finds and ends a running `examrelay up`. Exits 0 only when everything ended as it should.
"""

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.table import Table

from sandbox.control import Sandbox
from sandbox.scenarios import Delivery, Json, Scenario, scenarios
from worker.local.children import tie_to_parent
from worker.local.running import Running, find

START_SECONDS = 120.0
#: From a delivery until its event must have ended: a lost hint costs seconds, a busy machine more.
SETTLE_SECONDS = 45.0
STOP_SECONDS = 120.0
TENANT, RHYTHM_TENANT = "acme", "acme.org"
_NEXT = """
to open: {running.console}  the pages for people; sign in with what stands above
         {running.flower}  the tasks (Flower)
         {running.sandbox}/_sandbox/registrations/{tenant}  what Rhythm has now
to type, in another window in this folder (. .venv/bin/activate):
         examrelay status
         examrelay held list
         examrelay audit
to practise: add the exam code that `held list` shows as not in the exam map to a line `codes` in {file},
         Ctrl-C here, `examrelay up --sandbox`, and in the other window
         examrelay plan --reason unknown_exam
         examrelay replay --reason unknown_exam
Ctrl-C stops everything; what was sent and what Rhythm has is kept."""
#: On a temporary folder the demo ignores these, so that it can run beside anything.
_OURS = {"REDIS_URL", "PORT", "EXAMRELAY_CONFIG"}


@dataclass
class Outcome:
    """What became of one scenario: an event for each delivery, and the stand-in's record of the registration."""

    scenario: Scenario
    events: list[Json] = field(default_factory=list)
    record: Json = field(default_factory=lambda: {"registration": {}, "history": [], "letters": []})

    @property
    def ends(self) -> str:
        """`passed 82.5`."""
        registration: Json = self.record["registration"]
        score = f" {registration['score']:g}" if "score" in registration else ""
        return f"{registration.get('status', 'none')}{score}"

    @property
    def as_expected(self) -> bool:
        """Whether every event and the registration ended as they should."""
        wanted = self.scenario
        counted = (len(self.record["history"]), len(self.record["letters"]))
        return (
            all(ended(*one) for one in zip(self.events, wanted.deliveries, strict=True))
            and self.ends == wanted.ends
            and counted == (wanted.writes, wanted.writes)
        )


def ended(event: Json, sent: Delivery) -> bool:
    """Whether an event is in the state and for the reason that the scenario asks for."""
    return (event["state"], event["reason"]) == (sent.state, sent.reason)


class Recorder:
    """The receiver of a running examrelay, as platforms and an operator see it."""

    def __init__(self, running: Running) -> None:
        self._url, self._secrets = f"{running.receiver}/v1/{TENANT}", running.variables
        self._session = requests.Session()
        self._session.trust_env = False

    def deliver(self, sent: Delivery) -> str:
        """Returns the event's id."""
        method, path = ("PUT", f"{sent.source}/{sent.put}") if sent.put else ("POST", sent.source)
        key = (sent.source, self._secrets[f"ACME_{sent.source.upper()}"])
        return str(self._call(method, path, data=sent.body, auth=key)["id"])

    def wait(self, id: str, sent: Delivery) -> Json:
        """The event once it is where it should be, or where it is when time is up."""
        deadline = time.monotonic() + SETTLE_SECONDS
        key = {"Authorization": f"Bearer {self._secrets['ACME_READ']}"}
        while not ended(event := self._call("GET", f"events/{id}", headers=key), sent):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return event

    def _call(self, method: str, path: str, **more: Any) -> Json:
        answer = self._session.request(method, f"{self._url}/{path}", timeout=10, **more)
        if not answer.ok:
            sys.exit(f"the receiver answered {answer.status_code} to {method} {answer.url}: {answer.text}")
        document: Json = answer.json()
        return document


def play(running: Running) -> list[Outcome]:
    """Send the first delivery of each scenario, then the second ones, and so on; each round waits for the last."""
    outcomes = [Outcome(scenario) for scenario in scenarios(secrets.token_hex(3))]
    assert running.sandbox is not None
    with Sandbox(running.sandbox) as rhythm:
        rhythm.seed(RHYTHM_TENANT, [one for outcome in outcomes for one in outcome.scenario.registrations])
        receiver = Recorder(running)
        for number in range(max(len(one.scenario.deliveries) for one in outcomes)):
            now = [(one, one.scenario.deliveries[number]) for one in outcomes if number < len(one.scenario.deliveries)]
            for one, sent, id in [(one, sent, receiver.deliver(sent)) for one, sent in now]:
                one.events.append(receiver.wait(id, sent))
        for one in outcomes:
            if one.scenario.registrations:
                one.record = rhythm.record(RHYTHM_TENANT, one.scenario.registrations[0]["id"])
    return outcomes


def table(outcomes: list[Outcome]) -> Table:
    """A row a scenario: what it shows, where its events stand, and what became of the registration."""
    shown = Table(title="What became of what was sent", title_justify="left", show_lines=True)
    for column in ("scenario", "events: state, reason or result", "registration: sys_version, letters", ""):
        shown.add_column(column, overflow="fold", min_width=30 if column.startswith("events") else None)
    for outcome in outcomes:
        scenario = f"[bold]{outcome.scenario.name}[/]\n{outcome.scenario.why}"
        events = "\n".join(f"{one['id']}\n  {_stands(one)}" for one in outcome.events)
        shown.add_row(scenario, events, _changed(outcome), "[green]✓[/]" if outcome.as_expected else "[red]✗[/]")
    return shown


def _stands(event: Json) -> str:
    """`held: unknown_exam`, `synced: written, 2 receipts`."""
    more = [event["reason"] or event["result"], f"{event['receipts']} receipts" if event["receipts"] > 1 else None]
    details = ", ".join(filter(None, more))
    return f"{event['state']}: {details}" if details else str(event["state"])


def _changed(outcome: Outcome) -> str:
    """Before → after, and how: `1 → 2, 1 letter`."""
    writes, letters = len(outcome.record["history"]), len(outcome.record["letters"])
    if not writes:
        return outcome.ends if outcome.ends == "none" else f"{outcome.ends}\n  not written"
    return f"registered → {outcome.ends}\n  1 → {1 + writes}, {letters} letter{'' if letters == 1 else 's'}"


@contextmanager
def everything(data: Path, environment: dict[str, str], show: bool, *options: str) -> Iterator[Running]:
    """`examrelay up --sandbox` until the block ends. `show`: it says where everything is.

    In a session of its own: Ctrl-C is ours to pass on.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "up", "--sandbox", "--quiet", *options],
        start_new_session=True,
        env=environment | {"EXAMRELAY_DATA": str(data)},
        stdout=None if show else subprocess.DEVNULL,
        preexec_fn=tie_to_parent(signal.SIGTERM),  # one thread
    )
    deadline = time.monotonic() + START_SECONDS
    try:
        while (running := find(data)) is None or running.pid != process.pid:
            if process.poll() is not None:
                sys.exit(process.returncode)  # it has printed why
            if time.monotonic() > deadline:
                sys.exit(f"examrelay was not up within {START_SECONDS:g} s; see {data / 'logs'}")
            time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def run(data: Path, environment: dict[str, str], stay: bool, *options: str) -> int:
    """Start, play, show; stay until Ctrl-C if asked to. Returns the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    began = time.monotonic()
    console.print("starting examrelay with a stand-in Rhythm ...")
    with everything(data, environment, stay, *options) as running:
        console.print(f"up after {time.monotonic() - began:.1f} s; sending ...")
        outcomes = play(running)
        console.print(table(outcomes))
        good, seconds = sum(outcome.as_expected for outcome in outcomes), time.monotonic() - began
        console.print(f"{good} of {len(outcomes)} scenarios ended as they should, {seconds:.1f} s in all")
        if stay:
            console.print(_NEXT.format(running=running, tenant=RHYTHM_TENANT, file=data / "sandbox.toml"))
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
            console.print("stopping ...")
    return 0 if good == len(outcomes) else 1


def main() -> None:
    """With `--data` the demo runs on that folder and this environment; else on a temporary folder and free ports."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="keep the data in this folder")
    parser.add_argument("--stay", action="store_true", help="on a terminal: stay up until Ctrl-C")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stay = arguments.stay and sys.stdout.isatty()
    try:
        sys.exit(run(arguments.data, dict(os.environ), stay) if arguments.data else _run_aside(stay))
    except KeyboardInterrupt:
        sys.exit(130)


def _run_aside(stay: bool) -> int:
    """On a temporary folder and free ports. The folder is kept when something failed."""
    folder = Path(tempfile.mkdtemp(prefix="examrelay-demo-"))
    failed = True
    try:
        failed = run(folder, {name: os.environ[name] for name in os.environ.keys() - _OURS}, stay, "--port", "0") != 0
    except KeyboardInterrupt:
        failed = False
        raise
    finally:
        if failed:
            sys.stderr.write(f"what happened is in {folder / 'logs'}\n")
        else:
            shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    main()
