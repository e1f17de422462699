"""Strays: messages with a result perhaps, that can be put on nobody's books. Kept for a person."""

import base64
import hashlib
import json
from typing import Any

import redis

from worker.ledger.client import script_text
from worker.ledger.keys import STRAYS
from worker.ledger.sealed import Sealer


def keep(client: "redis.Redis", sealer: Sealer, why: str, task: str, content: bytes) -> str:
    """Keep a message's content, sealed. Returns the stray's id; the same content again is the same stray.

    `why` is for people and quotes nothing of it; `task` is Celery's id of the message. Raises what Redis raises.
    """
    id = "stray_" + base64.b32encode(hashlib.sha256(content).digest()[:20]).decode().lower()[:26]
    told = json.dumps({"why": why, "task": task[:64], "bytes": len(content)})
    client.eval(script_text("stray"), 0, id, told, sealer.seal(content, id))
    return id


def content(client: "redis.Redis", sealer: Sealer, id: str) -> bytes | None:
    """What a stray's message held: `[args, kwargs]` as JSON, or its whole body. None when there is no such stray."""
    found: Any = client.hget(STRAYS, id)
    return None if found is None else sealer.open(found.split(b"\n", 2)[2], id)
