"""The demo: starts everything with the stand-in Rhythm, sends every scenario, and shows what became of it.

Run: `python -m sandbox.demo`. An outsider: it speaks to the door and the stand-in over HTTP and imports no production
code but for what `examrelay up` says of itself. Exits 0 only when everything ended as it should.
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
from itertools import zip_longest
from pathlib import Path

import requests
from rich.console import Console
from rich.table import Table

from sandbox.control import Sandbox
from sandbox.scenarios import Delivery, Json, Scenario, scenarios
from worker.processes import tie_to_parent
from worker.running import Running, find

START_SECONDS = 120.0
#: From a delivery until its event must have ended: a lost hint costs seconds, a busy machine more.
SETTLE_SECONDS = 45.0
STOP_SECONDS = 120.0
TENANT, RHYTHM_TENANT = "acme", "acme.org"
#: With data of its own, the demo heeds none of these, so that it can run beside anything.
_OURS = ("REDIS_URL", "PORT", "EXAMRELAY_CONFIG")


@dataclass
class Outcome:
    """What became of one scenario."""

    scenario: Scenario
    before: Json = field(default_factory=dict)
    after: Json = field(default_factory=dict)
    letters: int = 0
    events: list[Json] = field(default_factory=list)

    @property
    def writes(self) -> int:
        """How far the first registration's version moved."""
        return int(self.after.get("sys_version", 0)) - int(self.before.get("sys_version", 0))

    @property
    def as_expected(self) -> bool:
        """Whether every event and the registration ended as they should."""
        wanted = self.scenario
        return (
            all(ended(event, sent) for event, sent in zip_longest(self.events, wanted.deliveries, fillvalue=None))
            and all(self.after.get(name) == value for name, value in wanted.expected.items())
            and (self.writes, self.letters) == (wanted.writes, wanted.letters)
        )


def ended(event: Json | None, sent: Delivery | None) -> bool:
    """Whether an event is where it should be. One that waits there must have been tried."""
    return event is not None and sent is not None and (event["state"], event["reason"]) == (sent.state, sent.reason)


class Door:
    """The door of a running examrelay, as platforms and an operator see it."""

    def __init__(self, running: Running) -> None:
        self._url = running.door
        self._secrets = running.variables
        self._session = requests.Session()
        self._session.trust_env = False

    def post(self, sent: Delivery) -> str:
        """Deliver. Returns the event's id."""
        url = f"{self._url}/v1/{TENANT}/{sent.source}/{sent.path}".rstrip("/")
        return str(
            _told(
                self._session.request(sent.method, url, data=sent.body, auth=self._auth(sent.source), timeout=10), 202
            )["id"]
        )

    def event(self, id: str) -> Json:
        """Where an event stands."""
        headers = {"Authorization": f"Bearer {self._secrets['ACME_READ']}"}
        return _told(self._session.get(f"{self._url}/v1/{TENANT}/events/{id}", headers=headers, timeout=10), 200)

    def wait(self, id: str, sent: Delivery) -> Json:
        """The event once it is where it should be, or where it is when time is up."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not ended(event := self.event(id), sent) and time.monotonic() < deadline:
            time.sleep(0.05)
        return event

    def _auth(self, source: str) -> tuple[str, str]:
        return source, self._secrets[f"ACME_{source.upper()}"]


def _told(answer: requests.Response, expected: int) -> Json:
    """What the door answered; anything but the expected ends the demo."""
    if answer.status_code != expected:
        sys.exit(f"the door answered {answer.status_code} to {answer.request.method} {answer.url}: {answer.text}")
    told: Json = answer.json()
    return told


def play(running: Running) -> list[Outcome]:
    """Send every scenario's first delivery, then every second one ...; each round when the one before has ended."""
    outcomes = [Outcome(scenario) for scenario in scenarios(secrets.token_hex(3))]
    assert running.sandbox is not None
    with Sandbox(running.sandbox) as rhythm:
        rhythm.seed(RHYTHM_TENANT, [one for outcome in outcomes for one in outcome.scenario.registrations])
        for outcome in outcomes:
            outcome.before, _ = _first_registration(rhythm, outcome.scenario)
        door = Door(running)
        for number in range(max(len(outcome.scenario.deliveries) for outcome in outcomes)):
            now = [one for one in outcomes if number < len(one.scenario.deliveries)]
            sent = [(one, one.scenario.deliveries[number]) for one in now]
            posted = [(one, delivery, door.post(delivery)) for one, delivery in sent]
            for one, delivery, id in posted:
                one.events.append(door.wait(id, delivery))
        for outcome in outcomes:
            outcome.after, outcome.letters = _first_registration(rhythm, outcome.scenario)
    return outcomes


def _first_registration(rhythm: Sandbox, scenario: Scenario) -> tuple[Json, int]:
    """As it is now, and how many letters it has sent."""
    if not scenario.registrations:
        return {}, 0
    record = rhythm.record(RHYTHM_TENANT, scenario.registrations[0]["id"])
    return record["registration"], len(record["letters"])


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
    told = ", ".join(filter(None, more))
    return f"{event['state']}: {told}" if told else str(event["state"])


def _changed(outcome: Outcome) -> str:
    """Before → after, and how: `1 → 2, 1 letter`."""
    if not outcome.before:
        return "none"
    before, after = _says(outcome.before), _says(outcome.after)
    if not outcome.writes and before == after:
        return f"{before}\n  not written"
    letters = "1 letter" if outcome.letters == 1 else f"{outcome.letters} letters"
    return f"{before} → {after}\n  {outcome.before['sys_version']} → {outcome.after['sys_version']}, {letters}"


def _says(registration: Json) -> str:
    score = registration.get("score")
    return str(registration.get("status")) + ("" if score is None else f" {score:g}")


@contextmanager
def everything(data: Path, environment: dict[str, str], *options: str) -> Iterator[Running]:
    """`examrelay up --sandbox` until the block ends. In a session of its own: Ctrl-C is ours to pass on."""
    command = [sys.executable, "-m", "worker", "up", "--sandbox", "--quiet", *options]
    process = subprocess.Popen(
        command, env=environment | {"EXAMRELAY_DATA": str(data)}, start_new_session=True,
        preexec_fn=tie_to_parent(signal.SIGTERM), stdout=subprocess.DEVNULL,  # noqa: PLW1509  # one thread
    )  # fmt: skip
    try:
        yield _started(process, data)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        process.wait(STOP_SECONDS)


def _started(process: "subprocess.Popen[bytes]", data: Path) -> Running:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(process.returncode)  # it has said why
        running = find(data)
        if running is not None and running.pid == process.pid:
            return running
        time.sleep(0.05)
    sys.exit(f"examrelay was not up within {START_SECONDS:g} s; see {data / 'logs'}")


def run(data: Path, environment: dict[str, str], stay: bool, *options: str) -> int:
    """Start, play, show; stay until Ctrl-C if asked to. Returns the exit code."""
    wide = None if sys.stdout.isatty() else 120
    console = Console(width=wide, highlight=False)
    began = time.monotonic()
    console.print("starting examrelay with a stand-in Rhythm ...")
    with everything(data, environment, *options) as running:
        console.print(f"up after {time.monotonic() - began:.1f} s; sending ...")
        outcomes = play(running)
        console.print(table(outcomes))
        good = sum(outcome.as_expected for outcome in outcomes)
        console.print(
            f"{good} of {len(outcomes)} scenarios ended as they should, {time.monotonic() - began:.1f} s in all"
        )
        if stay:
            _stay(console, running, data)
    return 0 if good == len(outcomes) else 1


def _stay(console: Console, running: Running, data: Path) -> None:
    """Say where to look, and wait for Ctrl-C."""
    for what, where in {
        "tasks (Flower)": running.flower,
        "ready?": f"{running.door}/readyz",
        "figures": f"{running.door}/metrics",
        "stand-in Rhythm": f"{running.sandbox}/_sandbox/registrations/{RHYTHM_TENANT}",
        "events": ".venv/bin/examrelay status · events list · held list",
        "logs": f"{data}/logs",
    }.items():
        console.print(f"  {what:<16} {where}")
    console.print("Ctrl-C stops everything.")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            signal.pause()
    console.print("stopping ...")


def main() -> None:
    """With `--data`, on that folder and the environment as it is; else on a temporary folder and free ports."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="keep the data in this folder")
    parser.add_argument("--stay", action="store_true", help="on a terminal: stay up until Ctrl-C")
    told = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    environment = dict(os.environ)
    with contextlib.suppress(KeyboardInterrupt):
        if told.data:
            sys.exit(run(told.data, environment, told.stay and sys.stdout.isatty()))
        for name in _OURS:
            environment.pop(name, None)
        sys.exit(_run_aside(environment))
    sys.exit(130)


def _run_aside(environment: dict[str, str]) -> int:
    """On a temporary folder and free ports. What did not go well leaves its folder, to be looked into."""
    folder = Path(tempfile.mkdtemp(prefix="examrelay-demo-"))
    failed = True
    try:
        failed = run(folder, environment, False, "--port", "0") != 0
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
