"""A person at the console: signs in to a real process, and asks for each kind of page, as a browser without scripts."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from bench.ours import TENANT, Ours
from schemas.event import EventState, Reason
from schemas.outcome import Source
from tests.console_peer import HASH, PASSWORD, Browser
from tests.running import free_port, wait_until

_USER: Final = f'\n[console.users.ann]\npassword = "{HASH}"\nrole = "act"\ntenants = ["{TENANT}"]\n'
_TIMES: Final = 5
_CLOSED: Final = "until=2020-01-01T00:00"


class Visit(NamedTuple):
    """A page, and the seconds that it took: the median, and the longest."""

    path: str
    seconds: float
    longest: float


@contextmanager
def console(ours: Ours) -> Iterator[Browser]:
    """A browser that is signed in to a console on this side's ledger."""
    config = Path(ours.environ["EXAMRELAY_CONFIG"])
    if _USER not in config.read_text():
        config.write_text(config.read_text() + _USER)
    ours.environ["EXAMRELAY_CONSOLE_PORT"] = str(port := free_port())
    ours.start("console", "-m", "worker.console")
    try:
        with Browser(f"http://127.0.0.1:{port}") as browser:
            wait_until(lambda: browser.get("/healthz").status, 30, "the console")
            if browser.sign_in("ann", PASSWORD).path != "/":
                raise RuntimeError("the console does not let its user in")
            yield browser
    finally:
        ours.end("console")


def pages(browser: Browser) -> dict[str, list[str]]:
    """Each kind of page, and the paths of that kind: each filter of the events alone, some together, and older ones."""
    filters = [f"state={state}" for state in EventState] + [f"source={source}" for source in Source]
    filters += [f"reason={reason}" for reason in Reason] + ["", _CLOSED, "since=2020-01-01T00:00", f"tenant={TENANT}"]
    filters += ["state=held&source=prov&reason=writes_off", "state=dead&source=drillster", "state=synced&source=prov"]
    lists = [f"/events?{one}" for one in filters]
    lists += [
        older
        for path in ("/events", "/events?state=held", "/events?source=drillster")
        for older in _older(browser, path)
    ]
    groups = _links(browser, "/decide", r"/decide/[^\"]+")
    return {
        "overview": ["/"],
        "events": lists,
        "one event": _links(browser, "/events?state=held", r"/events/[^\"?]+")[:3],
        "Decide": ["/decide"],
        "one group": [*groups[:3], *groups[-3:]],
        "strays": ["/strays", *_older(browser, "/strays")],
    }


def visited(browser: Browser, paths: list[str]) -> Visit:
    """Ask for each path some times. The slowest of them."""
    return max((_timed(browser, path) for path in paths), key=lambda visit: visit.seconds)


def _timed(browser: Browser, path: str) -> Visit:
    took = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        answer = browser.session.get(browser.url + path, timeout=60)
        took.append(time.perf_counter() - began)
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text[-500:]}")
    return Visit(path, median(took), max(took))


def _links(browser: Browser, path: str, link: str) -> list[str]:
    found: list[Any] = re.findall(f'href="({link})"', browser.get(path).html)
    if not found:
        raise RuntimeError(f"{path} leads nowhere")
    return [one.replace("&amp;", "&") for one in dict.fromkeys(found)]


def _older(browser: Browser, path: str, many: int = 3) -> list[str]:
    """The next pages of a list."""
    found = list[str]()
    for _ in range(many):
        further = re.findall(r'rel="next" href="([^"]*)"', browser.get(found[-1] if found else path).html)
        if not further:
            break
        link = further[0].replace("&amp;", "&")
        found.append(path.partition("?")[0] + link if link.startswith("?") else link)
    return found
