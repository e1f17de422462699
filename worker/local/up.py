"""Everything on one machine: Valkey (unless a Redis is given), web, worker, sweeper, beat, Flower, a stand-in Rhythm.

What is wrong is said before anything starts. Must not know how processes are kept (`children.py`), nor import
the stand-in, which is one more process here.
"""

import asyncio
import http.client
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.panel import Panel

from worker.errors import ConfigurationError
from worker.ledger.client import UNAVAILABLE, connect
from worker.ledger.durability import check_redis
from worker.local import append_only, running, valkey
from worker.local.children import Children, Program, StartFailed
from worker.local.logs import Output
from worker.queues import SLOT_SECONDS
from worker.settings import LocalSettings, Settings, environment, load_local_settings, load_settings, take_variables

PORT: Final = 8000
#: From the start of a wave until all of it is ready; a cold disk and two cores need most of it.
READY_SECONDS: Final = 60.0
STOPS: Final = (("web", "beat", "flower"), ("worker", "sweeper"), ("sandbox",), ("valkey",))
_CELERY: Final = (sys.executable, "-m", "celery", "-A", "worker.celery")
_HINTS_ONLY: Final = ("--without-gossip", "--without-mingle")


@dataclass(frozen=True)
class Plan:
    """What will run, and where it will be."""

    data: Path
    port: int
    flower: int
    valkey: int | None
    sandbox: int | None

    @property
    def receiver(self) -> str:
        """Where results are posted."""
        return f"http://127.0.0.1:{self.port}"


def up(*, sandbox: bool, port: int | None, quiet: bool) -> int:
    """Run everything until told to stop. Returns the exit code. Raises ConfigurationError before anything starts."""
    local = load_local_settings()
    with running.lock(local.data):
        plan = _plan(local, sandbox=sandbox or local.sandbox, port=local.port if port is None else port)
        variables = _variables(plan, local)
        take_variables(variables)
        settings = load_settings()
        assert settings.tenants  # read now, so that a mistake shows here
        mended = ""
        if plan.valkey is None:
            _check_redis(settings)
        else:
            mended = append_only.mend(plan.data / "valkey")
        output = Output(plan.data / "logs", quiet=quiet)
        if mended:
            output.about("valkey", mended)
        return asyncio.run(_run(plan, settings, variables, output))


def _plan(local: LocalSettings, *, sandbox: bool, port: int | None) -> Plan:
    """Ports for everything. Raises ConfigurationError when the one asked for is taken."""
    if port and not _is_free(port):
        raise ConfigurationError(f"port {port} is in use. Set PORT (or --port) to a free one, or end what uses it.")
    free, flower, own_valkey, stand_in = _free_ports(4)
    if port is None:
        port = PORT if _is_free(PORT) else free
    return Plan(
        data=local.data.resolve(),
        port=port or free,
        flower=flower,
        valkey=own_valkey if local.redis_url is None else None,
        sandbox=stand_in if sandbox else None,
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104  # as the receiver will
        except OSError:
            return False
    return True


def _free_ports(number: int) -> list[int]:
    """Different ports that nobody listens on now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _variables(plan: Plan, local: LocalSettings) -> dict[str, str]:
    """What all processes, and commands beside them, find in their environment. Writes the files that they name."""
    variables = {
        "PORT": str(plan.port),
        "EXAMRELAY_DATA": str(plan.data),
        "EXAMRELAY_CONFIG": str(local.config.resolve()),
    }
    if local.redis_url is not None:
        variables["REDIS_URL"] = local.redis_url.get_secret_value()
    if plan.valkey is not None:
        variables["REDIS_URL"] = valkey.configure(plan.data / "valkey", plan.valkey)
    if plan.sandbox is not None:
        config = plan.data / "sandbox.toml"
        config.write_text(_SANDBOX_TENANT.format(port=plan.sandbox))
        sources = ("CERTIVERSE", "DRILLSTER", "PROV", "READ")
        variables |= {f"ACME_{name}": secrets.token_urlsafe(12) for name in sources}
        variables |= {"ACME_RHYTHM": "sandbox-key", "EXAMRELAY_CONFIG": str(config)}
    if sys.stdout.isatty() and "EXAMRELAY_LOG_FORMAT" not in environment():
        variables["EXAMRELAY_LOG_FORMAT"] = "console"
    return variables


#: `acme`, whose Rhythm is the stand-in, with the exams that the demo's candidates sit.
_SANDBOX_TENANT: Final = """\
# Written by `examrelay up --sandbox` at each start.
[tenants.acme]
read_credentials = {{ kind = "bearer", token = "env:ACME_READ" }}

[tenants.acme.rhythm]
url = "http://127.0.0.1:{port}"
tenant_id = "acme.org"
credentials = {{ kind = "api_key", key = "env:ACME_RHYTHM" }}

[tenants.acme.sources.certiverse]
credentials = [ {{ kind = "basic", user = "certiverse", password = "env:ACME_CERTIVERSE" }} ]

[tenants.acme.sources.drillster]
credentials = [ {{ kind = "basic", user = "drillster", password = "env:ACME_DRILLSTER" }} ]
registration_ids = ["ticket.reference"]
third_party = "ACME"

[tenants.acme.sources.prov]
credentials = [ {{ kind = "basic", user = "prov", password = "env:ACME_PROV" }} ]

[[tenants.acme.exams]]
exam_id = "exam-1"
codes = ["CERT-1"]
score = "scaled"

[[tenants.acme.exams]]
exam_id = "exam-2"
codes = ["DRILL-2", "PROV-2"]
threshold = 70
"""


def _check_redis(settings: Settings) -> None:
    """The Redis that was given: there, and keeps what it acknowledges. Raises ConfigurationError."""
    client = connect(settings, patient=False)
    try:
        check_redis(client, settings)
    finally:
        client.close()


def _waves(plan: Plan, settings: Settings) -> list[list[Program]]:
    """What is started, one wave when the one before is ready."""
    python, flower = sys.executable, ("flower", "--address=127.0.0.1", f"--port={plan.flower}")
    hints = ("-P", "prefork", "-c", "4", "-Q", "examrelay,examrelay.receive", "-E", "-n", "worker@%h", *_HINTS_ONLY)
    sweeps = ("-P", "solo", "-Q", "examrelay.sweep", "-n", "sweeper@%h", *_HINTS_ONLY)
    others = [
        Program("web", (python, "-m", "worker.receiver"), answers=_answering(plan.port, "/healthz")),
        Program("worker", (*_CELERY, "worker", *hints), says=" ready.", grace_seconds=SLOT_SECONDS),
        Program("sweeper", (*_CELERY, "worker", *sweeps), says=" ready.", grace_seconds=SLOT_SECONDS),
        # Its schedule is in the code: nothing to remember in a file.
        Program("beat", (*_CELERY, "beat", "-S", "celery.beat:Scheduler"), says="beat: Starting"),
        Program("flower", (*_CELERY, *flower), answers=_answering(plan.flower, "/healthcheck")),
    ]
    if plan.sandbox is not None:
        stand_in = (python, "-m", "sandbox", "--port", str(plan.sandbox))
        others.insert(0, Program("sandbox", stand_in, says="sandbox ready"))
    if plan.valkey is None:
        return [others]
    server = (str(valkey.binary()), str(valkey.file(plan.data / "valkey")))
    return [[Program("valkey", server, answers=partial(_pings, settings), grace_seconds=30)], others]


def _answering(port: int, path: str) -> "partial[bool]":
    return partial(_answers, port, path)


def _answers(port: int, path: str) -> bool:
    """Whether there is a 200 at this path."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _pings(settings: Settings) -> bool:
    client = connect(settings, patient=False)
    try:
        return bool(client.ping())
    except UNAVAILABLE:
        return False
    finally:
        client.close()


async def _run(plan: Plan, settings: Settings, variables: dict[str, str], output: Output) -> int:
    """Start, wait to be told to stop, stop. The second time we are told, everything is killed at once."""
    told = asyncio.Event()
    children = Children(environment(), output)

    def stop() -> None:
        if told.is_set():
            children.kill()
        told.set()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, stop)
    starting = asyncio.create_task(_start(plan, children, _waves(plan, settings)))
    telling = asyncio.create_task(told.wait())
    try:
        await asyncio.wait([starting, telling], return_when=asyncio.FIRST_COMPLETED)
        if not told.is_set():
            starting.result()
            _announce(plan, variables)
            await told.wait()
    except StartFailed as failure:
        sys.stderr.write(f"examrelay up: {failure}\nThe whole of it is in {plan.data / 'logs'}.\n")
        if str(failure).startswith("valkey ") and (advice := append_only.advice(plan.data / "valkey")):
            sys.stderr.write(f"{advice}\n")
        return 1
    finally:
        starting.cancel()
        with suppress(asyncio.CancelledError, StartFailed):
            await starting
        telling.cancel()
        await children.stop(STOPS)
    return 0


async def _start(plan: Plan, children: Children, waves: Sequence[Sequence[Program]]) -> None:
    sys.stdout.write(f"examrelay is starting; its data is in {plan.data}\n")
    sys.stdout.flush()
    for wave in waves:
        await children.start(wave, READY_SECONDS)


def _announce(plan: Plan, variables: dict[str, str]) -> None:
    """Tell people and commands where everything is."""
    flower = f"http://127.0.0.1:{plan.flower}"
    sandbox = None if plan.sandbox is None else f"http://127.0.0.1:{plan.sandbox}"
    running.Running(os.getpid(), plan.receiver, flower, sandbox, variables).announce(plan.data)
    status = f"{_command()} status"
    if plan.data != Path(".data").resolve():
        status = f"EXAMRELAY_DATA={shlex.quote(str(plan.data))} {status}"
    lines = [
        f"post results to  {plan.receiver}/v1/{{tenant}}/{{source}}",
        f"ready?           {plan.receiver}/readyz",
        f"tasks (Flower)   {flower}",
        f"events           {status}",
        f"data and logs    {plan.data}",
    ]
    if sandbox:
        lines.insert(1, f"stand-in Rhythm  {sandbox}  (tenant acme)")
    Console(width=max(map(len, lines)) + 4, highlight=False).print(Panel("\n".join(lines), title="examrelay is up"))


def _command() -> str:
    """How `examrelay` is called from here."""
    if shutil.which("examrelay"):
        return "examrelay"
    beside = Path(sys.executable).parent / "examrelay"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
