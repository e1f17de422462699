"""REDIS_URL: one reading for redis-py, kombu and Flower; refused in one sentence that shows nothing of a password."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from flower.utils.broker import Broker
from redis.connection import parse_url

from worker.celery import make_app
from worker.errors import ConfigurationError
from worker.redis_address import read_address
from worker.settings import load_local_settings, load_settings

HARD = "p/?#@:% é[x];&=+"
ENCODED = "p%2F%3F%23%40%3A%25%20%C3%A9%5Bx%5D%3B%26%3D%2B"


@pytest.mark.parametrize(
    ("url", "host", "port", "db", "user", "password"),
    [
        ("redis://localhost", "localhost", 6379, 0, None, None),
        ("redis://redis_1.local:6380/", "redis_1.local", 6380, 0, None, None),
        ("REDIS://10.0.0.1/03", "10.0.0.1", 6379, 3, None, None),
        ("redis://[::1]:6380/3", "::1", 6380, 3, None, None),
        ("redis://:secret@h/15", "h", 6379, 15, None, "secret"),
        ("redis://relay@h", "h", 6379, 0, "relay", None),
        ("redis://relay:se:cr:et@h", "h", 6379, 0, "relay", "se:cr:et"),
        ("redis://relay:se@cr@et@h", "h", 6379, 0, "relay", "se@cr@et"),
        ("redis://relay:é[x]%3B@h", "h", 6379, 0, "relay", "é[x];"),
        (f"redis://{ENCODED}:{ENCODED}@h:1/1", "h", 1, 1, HARD, HARD),
        ("rediss://relay:%2525@h:1/1", "h", 1, 1, "relay", "%25"),
    ],
)
def test_every_part_reads_the_same(
    monkeypatch: pytest.MonkeyPatch, url: str, host: str, port: int, db: int, user: str | None, password: str | None
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    wanted = {"host": host, "port": port, "db": db, "username": user, "password": password}
    settings = load_settings()
    assert settings.redis.shown == f"{f'[{host}]' if ':' in host else host}:{port}/{db}"
    by_redis = parse_url(settings.redis.url)
    assert {name: by_redis.get(name) for name in wanted} == {"port": 6379, "db": 0} | wanted
    app = make_app(settings)
    with app.connection_for_read() as connection:
        assert (connection.hostname, connection.port, connection.userid or None, connection.password or None) == (
            host,
            port,
            user,
            password,
        )
        assert int(connection.virtual_host or 0) == db
        by_flower = Broker(connection.as_uri(include_password=True), broker_use_ssl=app.conf.broker_use_ssl)
        shown = connection.as_uri()
    told_flower = {name: getattr(by_flower, "vhost" if name == "db" else name) for name in wanted}
    assert told_flower | {"username": by_flower.username or None} == wanted
    assert password is None or password not in shown


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "is no address of a Redis"),
        ("127.0.0.1:6379", "is no address of a Redis"),
        ("http://h:6379/0", "is no address of a Redis"),
        ("valkey://h:6379/0", "is no address of a Redis"),
        ("redis:h", "is no address of a Redis"),
        ("redis://", "is no address of a Redis"),
        ("redis:///0", "is no address of a Redis"),
        ("redis://h/0/1", "is no address of a Redis"),
        ("redis://h/zero", "is no address of a Redis"),
        ("redis://h/-1", "is no address of a Redis"),
        ("redis://a,b/0", "is no address of a Redis"),
        ("redis://h/0;redis://i/0", "is no address of a Redis"),
        ("redis://h:0/0", "has a port that is none"),
        ("redis://h:65536/0", "has a port that is none"),
        ("redis://h:port/0", "percent-encoded"),
        ("redis://h:١/0", "percent-encoded"),
        ("redis://::1:6379/0", "percent-encoded"),
        ("redis://[::g]/0", "cannot be taken apart"),
        ("redis://[1:2]/0", "no IPv6 address"),
        ("redis://:x@h/%FF", "percent-encoded"),
        ("redis://:%FF@h/0", "not UTF-8"),
        ("redis://:hunter2%@h/0", "percent-encoded"),
        ("redis://h/0 ", "percent-encoded"),
        (" redis://h/0", "is no address of a Redis"),
        ("redis://h/0\n", "percent-encoded"),
        ("redis://:hun ter2@h/0", "percent-encoded"),
        ("redis://:hun\tter2@h/0", "percent-encoded"),
        ("redis://:hun/ter2@h:6379/0", "percent-encoded"),
        ("redis://:12/hunter2@h:6379/0", "percent-encoded"),
        ("redis://u:12/hunter2@h:6379/0", "percent-encoded"),
        ("redis://u:12?hunter2@h:6379/0", "percent-encoded"),
        ("redis://u:12?hunter2=@h:6379/0", "percent-encoded"),
        ("redis://u:12#hunter2@h:6379/0", "percent-encoded"),
        ("redis://:hun#ter2@h:6379/0", "percent-encoded"),
        ("redis://u:hunter2", "percent-encoded"),
        ("redis://h/0#hunter2", "percent-encoded"),
        ("redis://h/0?username=relay&password=hunter2", "may have these options"),
        ("redis://h/0?db=1", "may have these options"),
        ("redis://h/0?hunter2", "may have these options"),
        ("redis://h/0?socket_timeout=5", "may have these options"),
        ("redis://h/0?protocol=3", "may have these options"),
        ("rediss://h/0?ssl_ca_data=x", "may have these options"),
        ("rediss://h/0?ssl_cert_reqs=none&ssl_cert_reqs=none", "may have these options"),
        ("redis://h/0?ssl_cert_reqs=none", "must begin with rediss://"),
        ("rediss://h/0?ssl_cert_reqs=hunter2", "required, optional or none"),
        ("rediss://h/0?ssl_cert_reqs=", "required, optional or none"),
        ("rediss://h/0?ssl_check_hostname=hunter2", "true or false"),
        ("rediss://h/0?ssl_ca_certs=/no/hunter2.pem", "for ssl_ca_certs that cannot be read"),
        ("rediss://h/0?ssl_ca_certs=%00", "for ssl_ca_certs that cannot be read"),
        (f"rediss://h/0?ssl_ca_certs={__file__}", "cannot be used"),
        (f"rediss://h/0?ssl_certfile={__file__}", "cannot be used"),
        (f"rediss://h/0?ssl_keyfile={__file__}", "without ssl_certfile"),
        ("unix://:hunter2@/run/redis.sock?db=0", "Unix socket"),
        ("unix:///run/redis.sock?password=hunter2", "Unix socket"),
        ("redis+socket:///run/redis.sock", "Unix socket"),
        ("sentinel://:hunter2@h:26379", "Sentinel, which is not supported yet"),
        ("rediss+sentinel://h:26379", "Sentinel, which is not supported yet"),
    ],
)
def test_what_a_part_cannot_use_is_refused_for_all(monkeypatch: pytest.MonkeyPatch, url: str, said: str) -> None:
    monkeypatch.setenv("REDIS_URL", url.replace("\0", ""))
    for load in (load_settings, load_local_settings):
        if not url and load is load_local_settings:
            continue  # not given: `up` brings its own
        with pytest.raises(ConfigurationError) as caught:
            load()
        (line,) = str(caught.value).splitlines()
        assert line.startswith("REDIS_URL ")
        assert said in line
        assert not any(part in line for part in ("hun", "ter2"))
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("options", "tls"),
    [
        ("", {}),
        ("?", {}),
        ("?ssl_cert_reqs=required", {}),
        ("?ssl_cert_reqs=CERT_REQUIRED", {}),
        ("?ssl_cert_reqs=none", {"ssl_cert_reqs": ssl.CERT_NONE}),
        ("?ssl_cert_reqs=CERT_NONE", {"ssl_cert_reqs": ssl.CERT_NONE}),
        (
            "?ssl_cert_reqs=optional&ssl_check_hostname=False",
            {"ssl_cert_reqs": ssl.CERT_OPTIONAL, "ssl_check_hostname": False},
        ),
        ("?ssl_check_hostname=true", {}),
    ],
)
def test_tls_verifies_unless_told_otherwise(options: str, tls: dict[str, Any]) -> None:
    wanted = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True} | tls
    assert read_address(f"rediss://h/0{options}").tls == wanted
    assert read_address("redis://h/0").tls == {}


@pytest.mark.parametrize("name", ["CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"])
def test_celery_takes_no_other_address_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("REDIS_URL", "rediss://h:2/0")
    monkeypatch.setenv(name, "redis://elsewhere:1/0")
    app = make_app(load_settings())
    for connection in (app.connection_for_read(), app.connection_for_write()):
        assert (connection.hostname, connection.port, connection.transport_cls) == ("h", 2, "rediss")
        connection.close()


def test_neither_repr_nor_settings_show_the_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REDIS_URL", "rediss://relay:hunter2@h/0")
    settings = load_settings()
    assert "hunter2" not in repr(settings) + str(settings.redis) + repr(settings.model_dump())
    shown = make_app(settings).conf.humanize(with_defaults=True)
    assert "hunter2" not in shown
    assert "rediss://relay:****" in shown
