"""A worker that dies after so many calls: to Redis (a script, a read, a pipeline) and to Rhythm.

What a task does between two of its calls nobody else can see, so a death there is the same as a death right after the
first of the two. The boundaries of its calls are therefore all the steps there are.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import redis
from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter

from tasks.process import process_tenant
from worker.bootstrap import Services
from worker.ledger.client import SCRIPTS, script_text


class Died(BaseException):
    """The worker makes no further call. Not an Exception: no step may take it for a failure."""


class Life:
    """How many calls are left, and those that were made."""

    def __init__(self) -> None:
        self.left, self.made = math.inf, list[str]()

    def spend(self, call: str) -> None:
        """A call is about to be made. Raises Died instead when none is left."""
        if self.left <= 0:
            raise Died
        self.left -= 1
        self.made.append(call)


class MortalWorker:
    """Does what the task does, over connections of its own to Redis and Rhythm. After a death it can begin again."""

    def __init__(self, services: Services) -> None:
        self.services, self.life = services, Life()
        assert services.identity  # read once a process, and not by each task
        scripts = {services.redis.script_load(script_text(name)).encode(): name for name in SCRIPTS}
        services.redis.connection_pool.disconnect()
        services.redis.connection_pool.reset()
        services.redis.connection_pool.connection_class = partial(_Redis, self.life, scripts)  # type: ignore[assignment]
        services.session.mount("http://", _Rhythm(self.life, services.session.get_adapter("http://")))

    def dies(self, tenant: str, calls: int) -> str | None:
        """Do what `tasks.process` does, but no more than so many calls. The last one, if it died."""
        self.services.redis.ping()  # connects, so that only the calls of tasks are counted
        self.life.left, self.life.made = calls, []
        try:
            process_tenant(self.services, tenant)
        except Died:
            return self.life.made[-1]
        finally:
            self.life.left = math.inf
        return None


class _Redis(redis.Connection):
    def __init__(self, life: Life, scripts: Mapping[bytes, str], **settings: Any) -> None:
        super().__init__(**settings)
        self._life, self._names = life, scripts

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        words = b"".join(command).split(b"\r\n", 5)  # *3 $7 EVALSHA $40 sha
        self._life.spend(self._names.get(words[4 % len(words)], words[2].decode()))
        super().send_packed_command(command, check_health)


class _Rhythm(BaseAdapter):
    def __init__(self, life: Life, real: BaseAdapter) -> None:
        super().__init__()
        self._life, self._real = life, real

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        word = next((word for word in ("search", "batch", "studentExam") if f"/{word}" in str(request.url)), "one")
        self._life.spend(f"{request.method} {word}")
        return self._real.send(request, *args, **kwargs)

    def close(self) -> None:
        self._real.close()
