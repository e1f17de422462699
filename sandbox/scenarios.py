"""Reads `scenarios.toml`: what the demo sends and what must come of it.

Each run has ids of its own, so that it can be repeated on the same data.
"""

import secrets
import sys
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any

Json = dict[str, Any]
_FILE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Delivery:
    """One delivery, and the state and reason in which its event must end (`ready`: where it must wait)."""

    body: bytes
    state: str = "synced"
    reason: str | None = None
    source: str = "certiverse"
    #: The path that it is put to; posted without one.
    put: str = ""


@dataclass(frozen=True)
class Scenario:
    """Deliveries in order, each sent when the one before has ended; and what Rhythm must have then."""

    name: str
    why: str
    deliveries: list[Delivery]
    #: What Rhythm has beforehand; the first one's change is shown.
    registrations: list[Json] = field(default_factory=list)
    #: Status and score of the first registration at the end, and how many writes, each with a letter, that took.
    ends: str = "registered"
    writes: int = 0


def scenarios(run: str) -> list[Scenario]:
    """All of them, with ids that end in `run`."""
    document = tomllib.loads(_FILE.read_text())
    return [_scenario(entry, document["payloads"], run) for entry in document["scenarios"]]


def _scenario(entry: Json, payloads: Json, run: str) -> Scenario:
    who = f"{entry.pop('who')}-{run}"
    exam_id, suffixes = entry.pop("exam_id", "exam-1"), entry.pop("registrations", [""])
    deliveries = [_delivery(delivery, payloads, who) for delivery in entry.pop("deliveries")]
    return Scenario(
        **entry,
        deliveries=deliveries,
        registrations=[_registration(who, exam_id, suffix) for suffix in suffixes],
    )


def _delivery(entry: Json, payloads: Json, who: str) -> Delivery:
    payload = payloads[entry.pop("payload", "certiverse")]
    values = {f"ago_{hours}h": _ago(hours) for hours in (1, 2, 4, 24)} | {"who": who, "name": who.title()}
    given = payload.get("defaults", {}) | entry.pop("values", {})
    values |= {name: Template(value).substitute(values) for name, value in given.items()}
    body = Template(payload["body"]).substitute(values).encode() + entry.pop("appended", "").encode()
    put = Template(entry.pop("put", "")).substitute(values)
    return Delivery(body[: len(body) - entry.pop("cut", 0)], put=put, **entry)


def _registration(who: str, exam_id: str, suffix: str) -> Json:
    return {
        "id": f"reg-{who}{suffix}",
        "exam_id": exam_id,
        "student_id": f"stu-{who}",
        "status": "registered",
        "email_address": f"{who}@example.org",
        "name": who.title(),
        "date": "2026-01-05T00:00:00Z",
    }


def sample(name: str) -> bytes:
    """One payload by its name, of a person made up now. Ends the process when there is none of that name."""
    payloads = tomllib.loads(_FILE.read_text())["payloads"]
    if name not in payloads:
        sys.exit(f"there is no sample {name}. There are: {', '.join(payloads)}.")
    entry = {"payload": name, "values": {"score": "82.5", "verdict": "Pass"}}
    return _delivery(entry, payloads, f"sample-{secrets.token_hex(3)}").body


def _ago(hours: int) -> str:
    return (datetime.now(UTC).replace(minute=0, second=0) - timedelta(hours=hours)).isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.stdout.buffer.write(sample(sys.argv[1]))
