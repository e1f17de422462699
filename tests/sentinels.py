"""A Redis that fails over: a primary, two replicas and three sentinels, all by the program of the embedded server."""

import contextlib
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from tests.running import Valkey, free_port, wait_until
from worker.local.valkey import binary

NAME = "ours"
#: Without it a replica waits five seconds for others.
AT_ONCE = {"repl_diskless_sync_delay": "0"}


class Cluster:
    """Three servers, the first of which is the primary at first, and three sentinels."""

    def __init__(self, down_after: float = 0.6, password: str = "", sentinel: str = "", **config: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="examrelay-sentinel-")
        self._down_after, self._password = down_after, password
        config = AT_ONCE | config
        first = Valkey(**config)
        self.servers = [first, *(Valkey(replicaof=f"127.0.0.1 {first.port}", **config) for _ in range(2))]
        self.ports = [free_port() for _ in range(3)]
        self._sentinels: dict[int, subprocess.Popen[bytes]] = {}
        self._more = sentinel

    @property
    def url(self) -> str:
        """REDIS_URL."""
        return f"sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/0?master_name={NAME}"

    def start(self) -> "Cluster":
        """Start all, and wait until a failover is possible."""
        for server in self.servers:
            server.start()
        first, *replicas = (server.port for server in self.servers)
        for number, port in enumerate(self.ports):
            # What sentinels learn from each other within seconds they are told at once.
            known = [f"known-replica {NAME} 127.0.0.1 {one}" for one in replicas]
            known += [
                f"known-sentinel {NAME} 127.0.0.1 {one} {other:040x}"
                for other, one in enumerate(self.ports)
                if one != port
            ]
            lines = [
                f"myid {number:040x}",
                f"monitor {NAME} 127.0.0.1 {first} 2",
                f"down-after-milliseconds {NAME} {self._down_after * 1000:.0f}",
                f"failover-timeout {NAME} 4000",
                f"parallel-syncs {NAME} 2",
                *known,
            ]
            self._file(number).write_text(
                f"port {port}\nbind 127.0.0.1\ndir {self._folder.name}\nlogfile {self._file(number)}.log\n"
                + "".join(f"sentinel {line}\n" for line in lines)
                + self._more
            )
            self.start_sentinel(number)
        wait_until(self._ready, 20, "the sentinels")
        return self

    def _file(self, number: int) -> Path:
        return Path(self._folder.name) / f"sentinel-{number}.conf"

    def start_sentinel(self, number: int) -> None:
        """Start a sentinel, or start it again with what it knew."""
        self._sentinels[number] = subprocess.Popen([binary(), self._file(number), "--sentinel"])

    def ask(self, *words: str, number: int = 0) -> Any:
        """A sentinel's answer to a SENTINEL command."""
        with redis.Redis(port=self.ports[number], socket_timeout=1, decode_responses=True) as client:
            return client.execute_command(" ".join(("SENTINEL", words[0])), *words[1:])

    def _ready(self) -> bool:
        """Whether each sentinel knows the two others, and two replicas have all that the primary has."""
        for number in range(3):
            if self.ask("MASTERS", number=number)[NAME]["num-other-sentinels"] != 2:
                return False
            replicas = self.ask("REPLICAS", NAME, number=number)
            if [one["flags"] for one in replicas] != ["slave", "slave"]:
                return False
        with self.client() as client:
            info = client.info("replication")
        return [info.get(f"slave{number}", {}).get("state") for number in range(2)] == ["online", "online"]

    @property
    def primary(self) -> Valkey:
        """The server that most sentinels name."""
        named = []
        for number in range(3):
            with contextlib.suppress(redis.RedisError):
                named.append(int(self.ask("GET-MASTER-ADDR-BY-NAME", NAME, number=number)[1]))
        port = max(set(named), key=named.count)
        return next(server for server in self.servers if server.port == port)

    def client(self) -> "redis.Redis":
        """A client of the present primary, of redis-py alone."""
        return redis.Redis(port=self.primary.port, socket_timeout=5)

    def failed_over(self, former: Valkey, seconds: float = 30) -> Valkey:
        """The new primary, once all sentinels that run name it."""
        return wait_until(lambda: self.primary is not former and self.primary, seconds, "a failover")

    def settled(self) -> None:
        """Wait until all servers follow one primary again."""
        wait_until(self._ready, 60, "three servers in order")

    def signal(self, number: int, how: signal.Signals) -> None:
        """Send a signal to a sentinel."""
        self._sentinels[number].send_signal(how)

    def close(self) -> None:
        """End all."""
        for sentinel in self._sentinels.values():
            sentinel.kill()
            sentinel.wait(10)
        for server in self.servers:
            server.close()
        self._folder.cleanup()


@contextlib.contextmanager
def cluster(**options: Any) -> Iterator[Cluster]:
    """A cluster that is ready, ended with its block."""
    made = Cluster(**options)
    try:
        yield made.start()
    finally:
        made.close()


class Pair:
    """A primary, a replica, and one sentinel, alone too few for a failover: it names whom the test tells it to."""

    def __init__(self, password: str = "", sentinel_password: str = "") -> None:
        self._login = {"password": password} if password else {}
        self._sentinel_login = {"password": sentinel_password} if sentinel_password else {}
        config = AT_ONCE | ({"requirepass": password, "masterauth": password} if password else {})
        self.primary = Valkey(**config)
        self.other = Valkey(replicaof=f"127.0.0.1 {self.primary.port}", **config)
        for server in (self.primary, self.other) if password else ():
            server.url = f"redis://:{quote(password, safe='')}@127.0.0.1:{server.port}/0"
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="examrelay-sentinel-")
        self._sentinel: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """REDIS_URL."""
        return f"sentinel://127.0.0.1:{self.port}/0?master_name={NAME}"

    def start(self) -> "Pair":
        """Start all three."""
        for server in (self.primary, self.other):
            server.start()
        config = Path(self._folder.name) / "sentinel.conf"
        more = "".join(f'requirepass "{word}"\n' for word in self._sentinel_login.values())
        config.write_text(f"port {self.port}\nbind 127.0.0.1\nlogfile {config}.log\n{more}")
        self._sentinel = subprocess.Popen([binary(), config, "--sentinel"])
        wait_until(lambda: self._name(self.primary), 10, "the sentinel")
        with redis.Redis.from_url(self.other.url) as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", 10, "the replica")
        return self

    def _name(self, primary: Valkey) -> bool:
        with redis.Redis(port=self.port, **self._sentinel_login) as client:
            with contextlib.suppress(redis.ResponseError):
                client.execute_command("SENTINEL REMOVE", NAME)
            client.execute_command("SENTINEL MONITOR", NAME, "127.0.0.1", primary.port, 2)
            for password in self._login.values():
                client.execute_command("SENTINEL SET", NAME, "auth-pass", password)
        return True

    def move(self, *, demote: bool = True) -> Valkey:
        """The other is primary now. Connections to the former one stay open. Returns that one."""
        former, self.primary, self.other = self.primary, self.other, self.primary
        with redis.Redis.from_url(self.primary.url) as client:
            client.replicaof("NO", "ONE")
        self._name(self.primary)
        if demote:
            with redis.Redis.from_url(former.url) as client:
                client.replicaof("127.0.0.1", self.primary.port)
        return former

    def close(self) -> None:
        """End all."""
        if self._sentinel:
            self._sentinel.kill()
            self._sentinel.wait(10)
        self.primary.close()
        self.other.close()
        self._folder.cleanup()
