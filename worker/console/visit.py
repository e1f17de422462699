"""One request of a person who is signed in: who they are, what they may, what they sent, and how a page is answered."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from schemas.event import Event, EventState, Reason
from schemas.outcome import Source
from tasks.operator.listing import find_event
from worker import harmless
from worker.bootstrap import Services
from worker.console import wording
from worker.ledger import queries
from worker.users import Role

_TEMPLATES: Final = Environment(
    loader=PackageLoader("worker.console"),
    autoescape=True,
    finalize=wording.shown,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals.update(
    reasons=wording.reasons(),
    states=wording.STATES,
    shapes=wording.SHAPES,
    every_state=list(EventState),
    every_reason=sorted(Reason),
    every_source=list(Source),
    urlencode=urlencode,
)
_TEMPLATES.filters.update(
    span=wording.span,
    moment=wording.moment,
    plain=wording.plain,
    cell=harmless.cell,
    several=wording.several,
    clock=wording.clock,
    sentence=wording.sentence,
)


class Refusal(Exception):
    """Why a page is not given, in a person's words, with what to do."""

    def __init__(self, status: int, title: str, what: str) -> None:
        super().__init__(status, title, what)
        self.status, self.title, self.what = status, title, what


NOT_FOUND: Final = "It is not there, or not among the tenants that you may see. The search finds what you may see."


@dataclass(frozen=True)
class Visitor:
    """Who is signed in. The name stands in the history with what they do."""

    name: str
    role: Role
    tenants: tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """The members of a URL or of a posted form; of one that is there twice the last counts, except for `every`."""

    members: list[tuple[str, str]] = field(default_factory=list)

    def get(self, name: str) -> str:
        """Its value without spaces around; "" when it is not there."""
        return next((value.strip() for key, value in reversed(self.members) if key == name), "")

    def every(self, name: str) -> list[str]:
        """All its values, each once."""
        return list(dict.fromkeys(value.strip() for key, value in self.members if key == name and value.strip()))


@dataclass(frozen=True)
class Visit:
    """What a page's function works with."""

    at: Services
    request: Request
    user: Visitor
    form: Form
    token: str

    @property
    def by(self) -> str:
        """Their name as histories have it."""
        return f"operator:{self.user.name}"

    @property
    def may_act(self) -> bool:
        """Whether they may do more than look."""
        return self.user.role is Role.ACT

    @cached_property
    def now(self) -> datetime:
        """Redis' time at this request."""
        return queries.redis_now(self.at.redis)

    @cached_property
    def query(self) -> Form:
        """The members of the URL."""
        return Form(list(self.request.query_params.multi_items()))

    @property
    def sees_all(self) -> bool:
        """Whether nothing in this ledger is hidden from them: strays belong to nobody."""
        return {*self.at.tenants.tenants, *queries.tenants(self.at.redis)} <= {*self.user.tenants}

    def may_know(self, words: str) -> bool:
        """Whether a sentence is for them: one that begins with a tenant is for who may see that tenant."""
        subject, _, rest = words.partition(" ")
        return subject != "tenant" or rest.partition(" ")[0].rstrip(":") in self.user.tenants

    def tenant(self, name: str) -> str:
        """A tenant that was named. Raises Refusal when it is not one of theirs."""
        if name not in self.user.tenants:
            raise Refusal(404, "Not found", NOT_FOUND)
        return name

    def event(self) -> Event:
        """The event that the URL names, with its history. Raises Refusal."""
        tenant = self.tenant(self.request.path_params["tenant"])
        event = find_event(self.at, self.request.path_params["id"], tenant)
        if event is None:
            raise Refusal(404, "Not found", NOT_FOUND)
        return event

    def page(self, template: str, title: str, status: int = 200, **more: Any) -> Response:
        """A page. `title` holds nothing personal: it stands in the browser's history."""
        return HTMLResponse(render(template, title, self, **more), status)


def render(template: str, title: str, visit: Visit | None, **more: Any) -> str:
    """A template's text. Without a visit nobody is signed in."""
    now = more.pop("now", None) or (visit.now if visit else None)
    page = _TEMPLATES.get_template(template)
    return page.render(
        title=title, visit=visit, now=now, since=lambda at: wording.since(at, now) if now else "", **more
    )


def go_to(path: str, **query: str | Iterable[str]) -> Response:
    """Where the browser goes next, by GET."""
    members = urlencode({name: value for name, value in query.items() if value}, doseq=True)
    return RedirectResponse(path + (f"?{members}" if members else ""), 303)
