"""The console as a person meets it: a real server on a real port, and a browser without scripts that fills in forms."""

import html
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any, Self

import requests
import uvicorn

from tests.running import wait_until
from worker.bootstrap import Services
from worker.console.app import make_app, server_config
from worker.console.signing_in import HASHER
from worker.sockets import listen

PASSWORD = "right horse"
HASH = HASHER.hash(PASSWORD)
#: More tables for a tenants file: two users of `acme`, one of whom may act, one of `beta` alone, and one of both.
USERS = "".join(
    f'[console.users.{name}]\npassword = "{HASH}"\nrole = "{role}"\ntenants = {tenants}\n'
    for name, role, tenants in (
        ("ann", "act", '["acme"]'),
        ("sue", "see", '["acme"]'),
        ("bea", "act", '["beta"]'),
        ("max", "act", '["acme", "beta"]'),
    )
)
BETA = """
[tenants.beta]
[tenants.beta.rhythm]
url = "https://beta.example.org"
tenant_id = "beta.org"
credentials = { kind = "api_key", key = "env:ACME_RHYTHM" }
[tenants.beta.sources.certiverse]
credentials = [ { kind = "basic", user = "certiverse", password = "env:ACME_CERTIVERSE" } ]
"""


class _Forms(HTMLParser):
    """The forms of a page: where each goes, and what it would send as it stands."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.forms.append({"method": given["method"], "action": given["action"], "members": [], "names": set()})
        if not self.forms or "name" not in given:
            return
        form, name = self.forms[-1], given["name"]
        form["names"].add(name)
        if tag == "input" and given.get("type") not in ("checkbox", "radio"):
            form["members"].append((name, given.get("value") or ""))


class Page:
    """An answer."""

    def __init__(self, answer: requests.Response) -> None:
        self.status, self.html, self.headers, self.url = answer.status_code, answer.text, answer.headers, answer.url
        self.path = re.sub(r"^https?://[^/]+", "", answer.url)
        self.forms = _Forms(answer.text).forms if "html" in answer.headers.get("content-type", "") else []

    @property
    def text(self) -> str:
        """What is read, in one line."""
        body = self.html.partition("<main")[2]
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())

    @property
    def title(self) -> str:
        return re.findall(r"<title>(.*?)</title>", self.html)[0]

    @property
    def heading(self) -> str:
        return " ".join(re.sub(r"<[^>]*>", " ", re.findall(r"<h1.*?>(.*?)</h1>", self.html, re.S)[0]).split())

    def form(self, action: str, **holds: str) -> dict[str, Any]:
        """The first form that goes there and has these members."""
        for form in self.forms:
            if form["action"].partition("#")[0] == action and holds.items() <= dict(form["members"]).items():
                return form
        raise AssertionError(f"no form for {action} with {holds} on {self.path}")


class Browser:
    """One person's browser: keeps cookies, follows redirects, sends forms as they stand on a page."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def get(self, path: str, **more: Any) -> Page:
        return Page(self.session.get(self.url + path, timeout=30, **more))

    def post(self, path: str, members: Any, **more: Any) -> Page:
        return Page(self.session.post(self.url + path, data=members, timeout=30, **more))

    def send(self, page: Page, action: str, holds: dict[str, str] | None = None, **filled: Any) -> Page:
        """Fill in a form of the page and send it. A list is several boxes of one name."""
        form = page.form(action, **(holds or {}))
        members = [(name, value) for name, value in form["members"] if name not in filled]
        for name, value in filled.items():
            assert name in form["names"], f"{action} has no {name}"
            members += [(name, one) for one in (value if isinstance(value, list) else [value])]
        return self.post(form["action"], members)

    def sign_in(self, name: str, password: str = PASSWORD) -> Page:
        return self.send(self.get("/sign-in"), "/sign-in", name=name, password=password)


@contextmanager
def console(at: Services) -> Iterator[str]:
    """A running console. Gives its address."""
    listening = listen("127.0.0.1", 0, "")
    server = uvicorn.Server(server_config(make_app(at)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, 10, "the console")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@contextmanager
def signed_in(url: str, name: str = "ann") -> Iterator[Browser]:
    """A browser of a user."""
    with Browser(url) as browser:
        assert browser.sign_in(name).path == "/"
        yield browser
