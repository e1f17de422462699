"""`examrelay up`: everything on one machine. Valkey unless a Redis is given, all processes, perhaps a stand-in Rhythm.

Faults are reported before anything starts. Must not know how processes are kept running (`children.py`), nor import the
stand-in's code, which is one more process here.
"""

import asyncio
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Final

import requests
from rich.console import Console
from rich.panel import Panel

from worker.errors import ConfigurationError
from worker.ledger import sessions
from worker.ledger.client import UNAVAILABLE, connect
from worker.ledger.durability import check_redis
from worker.local import append_only, running, valkey
from worker.local.children import Children, Program, StartFailed
from worker.local.commands import ARGUMENTS, command
from worker.local.logs import Output
from worker.queues import SLOT_SECONDS
from worker.settings import LocalSettings, Settings, environment, load_local_settings, load_settings, take_variables
from worker.sockets import url_of

PORT: Final = 8000
CONSOLE: Final = 8001
FLOWER: Final = 5555
#: From the start of a wave until all of it is ready; a cold disk and two cores need most of it.
READY_SECONDS: Final = 60.0
STOPS: Final = (("web", "console", "beat", "flower"), ("worker", "sweeper"), ("sandbox",), ("valkey",))


@dataclass(frozen=True)
class Plan:
    """What will run, and where it will be."""

    data: Path
    port: int
    flower: int
    valkey: int | None
    sandbox: int | None
    #: Where results are posted.
    receiver: str
    console_port: int
    console: str


def up(*, sandbox: bool, port: int | None, quiet: bool) -> int:
    """Run everything until a signal ends it. Returns the exit code. Raises ConfigurationError before any start."""
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
        with closing(Output(plan.data / "logs", quiet=quiet)) as output:
            if mended:
                output.about("valkey", mended)
            return asyncio.run(_run(plan, settings, variables, output))


def _plan(local: LocalSettings, *, sandbox: bool, port: int | None) -> Plan:
    """Ports for everything. Raises ConfigurationError when the one asked for is taken."""
    if port and not _is_free(port):
        raise ConfigurationError(f"port {port} is in use. Set PORT (or --port) to a free one, or end what uses it.")
    free, console, flower, own_valkey, stand_in = _free_ports(5)
    if port is None:
        port = PORT if _is_free(PORT) else free
    if port and _is_free(FLOWER):
        flower = FLOWER
    if port not in (0, CONSOLE) and _is_free(CONSOLE):
        console = CONSOLE
    port, console = port or free, local.console_port or console
    return Plan(
        data=local.data.resolve(),
        port=port,
        flower=flower,
        valkey=own_valkey if local.redis_url is None else None,
        sandbox=stand_in if sandbox else None,
        receiver=url_of(local.host, port),
        console_port=console,
        console=url_of(local.console_host, console),
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))  # all addresses, as the receiver will
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
    """The environment of all processes, and of commands beside them. Writes the files that it names."""
    variables = {
        "PORT": str(plan.port),
        "FLOWER_PORT": str(plan.flower),
        "EXAMRELAY_CONSOLE_PORT": str(plan.console_port),
        "EXAMRELAY_DATA": str(plan.data),
        "EXAMRELAY_CONFIG": str(local.config.resolve()),
    }
    if local.redis_url is not None:
        variables["REDIS_URL"] = local.redis_url.get_secret_value()
    if plan.valkey is not None:
        variables["REDIS_URL"] = valkey.configure(plan.data / "valkey", plan.valkey)
    if plan.sandbox is not None:
        config = plan.data / "sandbox.toml"  # kept, so that what an operator changes in it stays
        shipped = resources.files("sandbox") / "tenants.toml"
        tenants = config.read_text() if config.exists() else shipped.read_text()
        config.write_text(re.sub(r"(?<=//127\.0\.0\.1:)(PORT|\d+)", str(plan.sandbox), tenants))
        variables |= {name: secrets.token_urlsafe(12) for name in re.findall(r'"env:(\w+)"', tenants)}
        variables |= {"ACME_RHYTHM": "sandbox-key", "EXAMRELAY_CONFIG": str(config)}
    if sys.stdout.isatty() and "EXAMRELAY_LOG_FORMAT" not in environment():
        variables["EXAMRELAY_LOG_FORMAT"] = "console"
    return variables


def _check_redis(settings: Settings) -> None:
    """The Redis that was given: there, and keeps what it acknowledges. Raises ConfigurationError."""
    with connect(settings, patient=False) as client:
        check_redis(client, settings)


def _waves(plan: Plan, settings: Settings) -> list[list[Program]]:
    """What is started; each wave when the one before is ready."""
    looks: dict[str, dict[str, Any]] = {
        "web": {"answers": partial(_answers, f"{plan.receiver}/healthz")},
        "worker": {"says": " ready.", "grace_seconds": SLOT_SECONDS},
        "sweeper": {"says": " ready.", "grace_seconds": SLOT_SECONDS},
        "beat": {"says": "beat: Starting"},
        "console": {"answers": partial(_answers, f"{plan.console}/healthz")},
        "flower": {"answers": partial(_answers, f"http://127.0.0.1:{plan.flower}/healthcheck")},
    }
    others = [Program(name, command(name), **looks[name]) for name in ARGUMENTS]
    if plan.sandbox is not None:
        kept = str(plan.data / "sandbox.json")
        stand_in = (sys.executable, "-m", "sandbox", "--port", str(plan.sandbox), "--keep", kept)
        others.insert(0, Program("sandbox", stand_in, says="sandbox ready"))
    if plan.valkey is None:
        return [others]
    server = (str(valkey.binary()), str(valkey.file(plan.data / "valkey")))
    looks["valkey"] = {"answers": partial(_pings, settings), "grace_seconds": 30, "variables": valkey.allocator()}
    return [[Program("valkey", server, **looks["valkey"])], others]


def _answers(url: str) -> bool:
    """Whether there is a 200 at this address of ours."""
    with requests.Session() as session:
        session.trust_env = False  # a proxy of the environment is not for loopback
        with suppress(requests.RequestException):
            return session.get(url, timeout=2).status_code == 200
    return False


def _pings(settings: Settings) -> bool:
    with connect(settings, patient=False) as client, suppress(*UNAVAILABLE):
        return bool(client.ping())
    return False


async def _run(plan: Plan, settings: Settings, variables: dict[str, str], output: Output) -> int:
    """Start, wait for a signal, stop. A second signal kills everything at once."""
    stopping = asyncio.Event()
    children = Children(environment(), output)

    def stop() -> None:
        if stopping.is_set():
            children.kill()
        stopping.set()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, stop)
    signalled = asyncio.create_task(stopping.wait())
    starting = asyncio.create_task(_start(plan, children, settings))
    try:
        await asyncio.wait([starting, signalled], return_when=asyncio.FIRST_COMPLETED)
        if not stopping.is_set():
            starting.result()
            _announce(plan, settings, variables)
            await signalled
    except StartFailed as failure:
        sys.stderr.write(f"examrelay up: {failure}\nThe whole of it is in {plan.data / 'logs'}.\n")
        if str(failure).startswith("valkey ") and (advice := append_only.advice(plan.data / "valkey")):
            sys.stderr.write(f"{advice}\n")
        return 1
    finally:
        starting.cancel()
        with suppress(asyncio.CancelledError, StartFailed):
            await starting
        signalled.cancel()
        await children.stop(STOPS)
    return 0


async def _start(plan: Plan, children: Children, settings: Settings) -> None:
    sys.stdout.write(f"examrelay is starting; its data is in {plan.data}\n")
    sys.stdout.flush()
    for wave in _waves(plan, settings):
        await children.start(wave, READY_SECONDS)


def _announce(plan: Plan, settings: Settings, variables: dict[str, str]) -> None:
    """Say where everything is: to people on the terminal, to commands in `running.json`."""
    flower = f"http://127.0.0.1:{plan.flower}"
    sandbox = None if plan.sandbox is None else f"http://127.0.0.1:{plan.sandbox}"
    running.Running(os.getpid(), plan.receiver, flower, plan.console, sandbox, variables).announce(plan.data)
    name = environment().get("USER") or "operator"
    with connect(settings, patient=False) as client:
        password = sessions.invite(client, name)
    status = f"{_name()} status"
    if plan.data != Path(".data").resolve():
        status = f"EXAMRELAY_DATA={shlex.quote(str(plan.data))} {status}"
    lines = [
        f"post results to  {plan.receiver}/v1/{{tenant}}/{{source}}",
        f"ready?           {plan.receiver}/readyz",
        f"console          {plan.console}",
        f"  sign in once   as {name}, password {password}",
        f"tasks (Flower)   {flower}",
        f"events           {status}",
        f"data and logs    {plan.data}",
    ]
    if sandbox:
        lines.insert(1, f"stand-in Rhythm  {sandbox}  (tenant acme)")
    Console(width=max(map(len, lines)) + 4, highlight=False).print(Panel("\n".join(lines), title="examrelay is up"))


def _name() -> str:
    """How to call `examrelay` from here."""
    if shutil.which("examrelay"):
        return "examrelay"
    beside = Path(sys.executable).parent / "examrelay"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
