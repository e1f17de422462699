"""Signing in and out: with a password of the tenants file, or once with what `up` or `console --sign-in` told."""

import hashlib
import hmac
import json
import secrets
import threading
from typing import Final

import structlog
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from worker.bootstrap import Services
from worker.console.visit import Form, Refusal, Visitor, render
from worker.ledger import queries, sessions
from worker.users import Role

_SESSION: Final = "examrelay_session"
#: Ties the form of the sign-in page to the browser that asked for it.
_ASKED: Final = "examrelay_asked"
#: 19 MiB and two passes: what OWASP recommends at least. Hashes made elsewhere keep their own costs.
HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
#: One password at a time: each takes a core and 19 MiB, and anybody may send them.
_ONE_AT_A_TIME: Final = threading.Lock()
_NOBODYS: Final = HASHER.hash(secrets.token_hex())
_REFUSED: Final = "That is not a name and its password."
_TOO_OFTEN: Final = "Too many wrong passwords for that name. Try again in a quarter of an hour."
_LOG: Final = structlog.get_logger()


def signed_in(at: Services, request: Request) -> tuple[Visitor, str] | None:
    """Who is signed in, as the tenants file has them now, and the session's token; None when nobody is."""
    token = request.cookies.get(_SESSION, "")
    kept = sessions.found(at.redis, token) if token else None
    if kept is None:
        return None
    session = json.loads(kept)
    visitor = _visitor(at, session["name"], session["once"])
    if visitor is None or session["proof"] != _proof(at, session["name"], session["once"]):
        return None  # no user any more, or with another password since
    return visitor, token


def form_token(token: str) -> str:
    """What each form of a session carries, so that no other site can send it."""
    return hashlib.sha256(b"form\0" + token.encode()).hexdigest()


def is_ours(form: Form, token: str) -> bool:
    """Whether a form carries it."""
    return token != "" and hmac.compare_digest(form.get("form_token").encode(), form_token(token).encode())


def ask(_at: Services, request: Request, _form: Form, says: str = "", status: int = 200) -> Response:
    """The page to sign in."""
    asked = request.cookies.get(_ASKED) or secrets.token_urlsafe(16)
    page = HTMLResponse(render("sign_in.html", "Sign in", None, says=says, form_token=form_token(asked)), status)
    _set(page, request, _ASKED, asked)
    return page


def sign_in(at: Services, request: Request, form: Form) -> Response:
    """A name and a password."""
    if not is_ours(form, request.cookies.get(_ASKED, "")):
        return ask(at, request, form, "This page was open for too long. Please try again.", 403)
    name, password = form.get("name"), form.get("password")
    if not _ONE_AT_A_TIME.acquire(timeout=2):
        raise Refusal(503, "Busy", "Many people try to sign in at this moment. Try again in a minute.")
    try:
        if sessions.failures(at.redis, name) >= sessions.FAILURES_ALLOWED:
            return ask(at, request, form, _TOO_OFTEN, 429)
        once = sessions.invited(at.redis, password) == name
        if not once and not _is_password(at, name, password):
            sessions.failed(at.redis, name)
            _LOG.warning("sign_in.refused", known=name in at.tenants.console.users)
            return ask(at, request, form, _REFUSED, 403)
    finally:
        _ONE_AT_A_TIME.release()
    token = sessions.begin(at.redis, json.dumps({"name": name, "once": once, "proof": _proof(at, name, once)}))
    _LOG.info("sign_in.accepted", user=name, once=once)
    answer = RedirectResponse("/", 303)
    _set(answer, request, _SESSION, token)
    answer.delete_cookie(_ASKED)
    return answer


def sign_out(at: Services, request: Request, form: Form) -> Response:
    """The session ends, in this browser and in every copy of its cookie."""
    token = request.cookies.get(_SESSION, "")
    if not is_ours(form, token):
        raise Refusal(403, "Not done", "This form is not of your session. Go back, load the page again, and try again.")
    sessions.end(at.redis, token)
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(_SESSION)
    return answer


def _set(answer: Response, request: Request, name: str, value: str) -> None:
    answer.set_cookie(name, value, httponly=True, samesite="strict", secure=request.url.scheme == "https")


def _is_password(at: Services, name: str, password: str) -> bool:
    """Takes as long for a name that there is not: it is tried on one of the users' hashes, whatever these cost."""
    users = at.tenants.console.users
    hashes = [one.password.get_secret_value() for one in users.values()] or [_NOBODYS]
    user = users.get(name)
    kept = user.password.get_secret_value() if user else hashes[hash(name) % len(hashes)]
    try:
        return HASHER.verify(kept, password) and user is not None
    except (VerificationError, InvalidHashError):
        return False


def _visitor(at: Services, name: str, once: bool) -> Visitor | None:
    if once:
        every = {*at.tenants.tenants, *queries.tenants(at.redis)}
        return Visitor(name, Role.ACT, tuple(sorted(every)))
    user = at.tenants.console.users.get(name)
    return Visitor(name, user.role, user.tenants) if user else None


def _proof(at: Services, name: str, once: bool) -> str:
    """Of the password that they signed in with: with another one the session ends."""
    user = at.tenants.console.users.get(name)
    return hashlib.sha256(user.password.get_secret_value().encode()).hexdigest() if user and not once else ""
