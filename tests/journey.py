"""Real deliveries in one process, with a note of every function of ours that they enter: for `test_map.py`.

`python -m tests.journey RHYTHM_URL`, with the environment of a receiver. Prints JSON: `entered`, the files of the first
delivery in the order in which they were first entered after its request came in, and `called`, all `[file, function]`.
"""

import json
import sys
import threading
from types import CodeType, FrameType
from typing import Any

import requests
import uvicorn

from sandbox.control import Sandbox
from schemas.event import EventState, Reason
from tasks.process import process_tenant
from tasks.receive import receive
from tasks.sweep import sweep
from tests.events import certiverse
from tests.pipeline import TENANT
from tests.running import ROOT, wait_until
from tests.senders import CERTIVERSE
from worker import enqueue, telemetry
from worker.bootstrap import services
from worker.ledger import queries
from worker.receiver.app import make_app, server_config
from worker.settings import load_settings
from worker.sockets import listen


class Notes:
    """What was entered since `begin`."""

    def __init__(self) -> None:
        self.called: dict[CodeType, None] = {}

    def begin(self) -> None:
        """In this thread and those that start later."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, _arg: Any) -> None:
        if event == "call":
            self.called[frame.f_code] = None

    def functions(self) -> list[tuple[str, str]]:
        """File and qualified name of our own functions, in the order in which they were first called."""
        files = [(code.co_filename.removeprefix(f"{ROOT}/"), code.co_qualname) for code in list(self.called)]
        return [one for one in files if one[0].startswith(("schemas/", "worker/", "tasks/"))]


def settled() -> None:
    """What `tasks.process` does."""
    process_tenant(services(), TENANT)


def main(rhythm: Sandbox) -> None:
    """Deliver over HTTP, by `enqueue` and by the task; let a write fail once; bury, replay and discard; sweep."""
    settings, notes = load_settings(), Notes()
    telemetry.set_up_logs(settings)
    at = services()
    server = uvicorn.Server(server_config(make_app(settings), settings))
    listening = listen(settings.host, settings.port, "PORT")
    notes.begin()
    serving = threading.Thread(target=server.run, args=([listening],), daemon=True)
    serving.start()
    wait_until(lambda: server.started, 20, "the receiver")
    notes.called.clear()
    url = f"http://127.0.0.1:{settings.port}/v1/{TENANT}/certiverse"
    id = requests.post(url, certiverse(), auth=CERTIVERSE, timeout=20).json()["id"]
    settled()
    event = queries.event(at.redis, TENANT, id)
    assert event is not None
    assert event.state is EventState.SYNCED, event
    files = [file for file, name in notes.functions()]
    first = next(place for place, one in enumerate(notes.functions()) if one[1] == "Receiver.accept")
    entered = list(dict.fromkeys(files[first:]))

    rhythm.fault("apply_then_lose", kind="patch")
    receive.run([TENANT, "certiverse", certiverse("dlv-2", "reg-2").decode()], {})
    settled()
    dead = enqueue(TENANT, "certiverse", "not JSON").id
    settled()
    for _ in range(2):
        at.ledger.replay(TENANT, dead, "test", {"accept": [Reason.INVALID_JSON]})
        settled()
    assert at.ledger.discard(TENANT, dead, "test", "nonsense")[0]
    sweep.run()
    server.should_exit = True
    serving.join()
    sys.stdout.write(json.dumps({"entered": entered, "called": notes.functions()}))


if __name__ == "__main__":
    with Sandbox(sys.argv[1]) as control:
        main(control)
