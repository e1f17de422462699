"""Connections to the primary that the sentinels name: for the clients of `client.py`, and for Celery's channels.

The pools are redis-py's. Its connections are not: they go back to the host they had when a command finds them closed
(https://github.com/redis/redis-py/issues/3874), and may be used again after they were cut off while they read.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import redis.asyncio.connection
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.connection
import redis.retry
import redis.sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.sentinel import MasterNotFoundError

from worker.redis_address import RedisAddress

#: For one sentinel to be reached, and again to answer. The receiver answers in a second though the first is frozen.
_SECONDS: Final = 0.3
#: A former primary goes on for ten seconds until the sentinels tell it, so we ask them.
_EVERY_SECONDS, _LATER_SECONDS = 1.0, 10.0
#: Who waits for a frozen primary learns of another one only afterwards.
FROZEN_SECONDS: Final = 3
_NO_MORE: Final = "it is the primary no more, or has lost its replicas"


def primary_pool(address: RedisAddress, **options: Any) -> "redis.sentinel.SentinelConnectionPool":
    """Connections to the primary. `options` are those of a redis-py connection."""
    sentinels = _Sentinels(address.sentinels, sentinel_kwargs=_to_sentinels(address, redis.retry.Retry))
    kind = PrimarySSLConnection if address.tls else PrimaryConnection
    return redis.sentinel.SentinelConnectionPool(
        address.master_name, sentinels, **{"connection_class": kind} | _to_primary(address) | options
    )


def asyncio_primary_pool(address: RedisAddress, **options: Any) -> "redis.asyncio.sentinel.SentinelConnectionPool":
    """As `primary_pool`, for asyncio."""
    retry = redis.asyncio.retry.Retry
    sentinels = _AsyncioSentinels(address.sentinels, sentinel_kwargs=_to_sentinels(address, retry))
    kind = _AsyncioPrimarySSLConnection if address.tls else _AsyncioPrimaryConnection
    return redis.asyncio.sentinel.SentinelConnectionPool(
        address.master_name, sentinels, connection_class=kind, **_to_primary(address), **options
    )


def _to_sentinels(address: RedisAddress, retry: type) -> dict[str, Any]:
    waits = {"socket_timeout": _SECONDS, "socket_connect_timeout": _SECONDS, "retry": retry(NoBackoff(), 0)}
    return waits | address.sentinel_login | ({"ssl": True} | address.tls if address.tls else {})


def _to_primary(address: RedisAddress) -> dict[str, Any]:
    login = redis.connection.parse_url(address.url.replace("sentinel://", "redis://", 1))
    return {name: login[name] for name in ("username", "password", "db") if name in login} | address.tls


def found(client: "redis.Redis") -> str:
    """Which primary the sentinels named, in words, once it has answered. Empty where Redis is at its own address."""
    pool = client.connection_pool
    if not isinstance(pool, redis.sentinel.SentinelConnectionPool):
        return ""
    host, port = pool.master_address
    return f"; the sentinels name {host}:{port} as primary"


def why_no_failover(client: "redis.Redis") -> str | None:
    """Why the sentinels could not replace the primary now; None where they could, or there are none."""
    pool = client.connection_pool
    if isinstance(pool, redis.sentinel.SentinelConnectionPool):
        try:
            pool.get_master_address()  # the first is one that answers then
            pool.sentinel_manager.sentinels[0].execute_command("SENTINEL CKQUORUM", pool.service_name)
        except RedisError as error:
            return f"the sentinels could not replace the primary: {error}. Start those that are missing"
    return None


def _why(name: str, heard: Sequence[Any]) -> str:
    """Why there is no primary, by what each sentinel answered or raised."""
    answers = [one for one in heard if not isinstance(one, Exception)]
    if not answers:
        return f"none of {len(heard)} sentinels answers; the last: {heard[-1]}"
    if not any(name in one for one in answers):
        return "the sentinels watch no primary of the name that master_name gives; `SENTINEL MASTERS` lists theirs"
    return "the sentinels say that the primary is down: a failover is under way, or too few of them are there for one"


def _not_first(sentinels: list[Any], one: Any) -> list[Any]:
    return [*(other for other in sentinels if other is not one), one]


class _Schedule:
    """When the sentinels are asked again by somebody who has a connection: in a second, or later if none answers."""

    _due_at = 0.0

    def due(self) -> bool:
        """Whether it is time. Then the caller asks."""
        now = time.monotonic()
        if now < self._due_at:
            return False
        self._due_at = now + _LATER_SECONDS
        return True

    def _answered(self, state: Any) -> tuple[str, int]:
        self._due_at = time.monotonic() + _EVERY_SECONDS
        return state["ip"], state["port"]


class _Sentinels(_Schedule, redis.sentinel.Sentinel):
    def discover_master(self, service_name: str) -> tuple[str, int]:
        """The primary's address. One that does not answer, or knows of none, is asked last from then on."""
        heard: list[Any] = []
        for sentinel in self.sentinels:
            try:
                heard.append(sentinel.sentinel_masters())
                sentinel.connection_pool.disconnect(inuse_connections=False)
            except (RedisError, OSError) as error:
                heard.append(error)
            else:
                state = heard[-1].get(service_name)
                if state and self.check_master_state(state, service_name):
                    return self._answered(state)
            self.sentinels = _not_first(self.sentinels, sentinel)
        raise MasterNotFoundError(_why(service_name, heard))


class _AsyncioSentinels(_Schedule, redis.asyncio.sentinel.Sentinel):
    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """As `_Sentinels`. Cut off by a deadline, it goes on with the next one."""
        heard: list[Any] = []
        for sentinel in self.sentinels:
            before, self.sentinels = self.sentinels, _not_first(self.sentinels, sentinel)
            try:
                heard.append(await sentinel.sentinel_masters())
                await sentinel.connection_pool.disconnect(inuse_connections=False)
            except (RedisError, OSError) as error:
                heard.append(error)
            else:
                state = heard[-1].get(service_name)
                if state and self.check_master_state(state, service_name):
                    self.sentinels = before
                    return self._answered(state)
        raise MasterNotFoundError(_why(service_name, heard))


def _takes_no_writes(error: ResponseError) -> bool:
    return isinstance(error, ReadOnlyError) or str(error).startswith("NOREPLICAS")


class PrimaryConnection(redis.connection.Connection):
    """A connection that asks for the primary whenever it connects, and is closed when that is one no more."""

    def __init__(self, connection_pool: Any, **options: Any) -> None:
        self._pool = connection_pool
        super().__init__(**options)

    def _connect(self) -> Any:
        self.host, self.port = self._pool.get_master_address()
        return super()._connect()

    def check_health(self) -> None:
        """As redis-py's, before each command; and whether the sentinels still name this primary."""
        if self._pool.sentinel_manager.due():
            with suppress(MasterNotFoundError):
                self._pool.get_master_address()
        if (self.host, self.port) != self._pool.master_address:
            self.disconnect()
            raise redis.ConnectionError(_NO_MORE)
        super().check_health()

    def read_response(self, *args: Any, **options: Any) -> Any:
        """As redis-py's."""
        try:
            return super().read_response(*args, **options)
        except ResponseError as error:
            if not _takes_no_writes(error):
                raise
            self.disconnect()
            raise redis.ConnectionError(_NO_MORE) from None


class PrimarySSLConnection(PrimaryConnection, redis.connection.SSLConnection):
    """The same over TLS."""


class _AsyncioPrimaryConnection(redis.asyncio.connection.Connection):
    def __init__(self, connection_pool: Any, **options: Any) -> None:
        self._pool = connection_pool
        super().__init__(**options)

    async def _connect(self) -> None:
        self.host, self.port = await self._pool.get_master_address()
        await super()._connect()

    async def check_health(self) -> None:
        """As `PrimaryConnection`'s."""
        if self._pool.sentinel_manager.due():
            with suppress(MasterNotFoundError):
                await self._pool.get_master_address()
        if (self.host, self.port) != self._pool.master_address:
            await self.disconnect()
            raise redis.ConnectionError(_NO_MORE)
        await super().check_health()

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """As `PrimaryConnection`'s."""
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            if not _takes_no_writes(error):
                raise
            await self.disconnect()
            raise redis.ConnectionError(_NO_MORE) from None


class _AsyncioPrimarySSLConnection(_AsyncioPrimaryConnection, redis.asyncio.connection.SSLConnection):
    pass
