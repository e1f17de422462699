"""Strays: messages that could not be recorded. They belong to no tenant, so only who may see all tenants sees them."""

from starlette.responses import Response

from schemas.outcome import Source
from tasks.operator import unrecorded
from worker.console.visit import Refusal, Visit
from worker.ledger import misdirected, queries, strays


def show(visit: Visit) -> Response:
    """`GET /strays`."""
    return _page(visit)


def look(visit: Visit) -> Response:
    """`POST /strays/look`: what one holds, as it was sent. The look is noted."""
    id = _id(visit)
    held = unrecorded.contents(visit.at, id)
    strays.note(visit.at.redis, visit.by, "look", id)
    return _page(visit, id, [content.decode(errors="replace") for content in held])


def act(visit: Visit) -> Response:
    """`POST /strays/act`: shows first what it will do; with `sure` it does it."""
    id, form = _id(visit), visit.form
    move, tenant, source, path = form.get("move"), form.get("tenant"), form.get("source"), form.get("path")
    if move not in ("receive", "discard") or (move == "receive" and source not in set(Source)):
        raise Refusal(400, "Not understood", "There is no such act, or no such exam platform. Nothing was done.")
    if move == "discard" and not form.get("why"):
        raise Refusal(400, "Say why", "Removing is for good: say why, without personal data. Nothing was done.")
    count = len(unrecorded.contents(visit.at, id))
    if not form.get("sure"):
        given = {name: form.get(name) for name in ("id", "move", "tenant", "source", "path", "why")}
        return visit.page("stray_preview.html", "Preview", given=given, count=count)
    if move == "discard":
        removed = unrecorded.discard(visit.at, id, visit.by, form.get("why"))
        return _page(visit, says=f"{removed} removed.")
    receipt = unrecorded.receive(visit.at, id, visit.tenant(tenant), Source(source), path, visit.by)
    return _page(visit, says=f"{id} is recorded, and is {receipt.state}.", link=f"/events/{tenant}/{receipt.id}")


def _id(visit: Visit) -> str:
    if not visit.sees_all:
        raise Refusal(404, "Not found", "Strays are for those who may see all tenants: nobody knows whose they are.")
    return visit.form.get("id")


def _page(visit: Visit, id: str = "", held: list[str] | None = None, says: str = "", link: str = "") -> Response:
    if not visit.sees_all:
        raise Refusal(403, "Not for you", "Strays are for those who may see all tenants: nobody knows whose they are.")
    found, after = strays.page(visit.at.redis, after=visit.query.get("after"))
    return visit.page(
        "strays.html",
        "Strays",
        found=found,
        after=after,
        count=queries.stray_count(visit.at.redis),
        malformed=queries.malformed(visit.at.redis),
        misdirected=misdirected.warning(visit.at.redis),
        acts=strays.acts(visit.at.redis)[:50],
        opened=id,
        held=held or [],
        says=says,
        link=link,
    )
