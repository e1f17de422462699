"""REDIS_URL: one reading for redis-py, kombu and Flower; refused in one sentence that shows nothing of a password."""

import ssl
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
        ("redis://h/0?master_name=ours", "may have these options"),
        ("redis+sentinel://:hunter2@h/0?master_name=ours", "is no address of a Redis"),
        ("sentinel://:hunter2@h:26379", "must name the primary"),
        ("sentinel://h,i/0?master_name=", "must name the primary"),
        ("sentinel:///0?master_name=ours", "is no address of a Redis"),
        ("sentinel://h,/0?master_name=ours", "is no address of a Redis"),
        ("sentinel://:hunter2@h;i/0?master_name=ours", "percent-encoded"),
        ("sentinel://h,sentinel://i/0?master_name=ours", "percent-encoded"),
        ("sentinel://:hunter2@h:1,i:0/0?master_name=ours", "has a port that is none"),
        ("sentinel://:hunter2@h,[::g]/0?master_name=ours", "cannot be taken apart"),
        ("sentinel://h/0?master_name=ours&master_name=hunter2", "may have these options"),
        ("sentinel://h/0?master_name=ours&password=hunter2", "may have these options"),
        ("sentinel://h/0?master_name=ours&sentinel_password=hun%ter2", "percent-encoded"),
        ("sentinel://h/0?master_name=ours&sentinel_password=hun@ter2", "percent-encoded"),
        ("sentinel://h/0?master_name=ours&ssl_cert_reqs=none", "or rediss+sentinel://"),
        ("rediss+sentinel://h/0?master_name=ours&ssl_cert_reqs=hunter2", "required, optional or none"),
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


@pytest.mark.parametrize(
    ("url", "asked", "shown", "first", "login"),
    [
        ("sentinel://h", (("h", 26379),), "h:26379/0", "sentinel://h:26379/0", {}),
        (
            "SENTINEL://u:p%40q@h:1,[::1]:2,i/3",
            (("h", 1), ("::1", 2), ("i", 26379)),
            "h:1,[::1]:2,i:26379/3",
            "sentinel://u:p%40q@h:1/3",
            {},
        ),
        (
            f"rediss+sentinel://:p@h,i/?sentinel_username=s&sentinel_password={ENCODED}",
            (("h", 26379), ("i", 26379)),
            "h:26379,i:26379/0",
            "sentinel://:p@h:26379/0",
            {"username": "s", "password": HARD},
        ),
        (
            "sentinel://h?sentinel_password=a+b%2B",
            (("h", 26379),),
            "h:26379/0",
            "sentinel://h:26379/0",
            {"password": "a+b+"},
        ),
    ],
)
def test_several_sentinels_are_named_with_their_own_login(
    url: str, asked: tuple[tuple[str, int], ...], shown: str, first: str, login: dict[str, str]
) -> None:
    address = read_address(f"{url}{'&' if '?' in url else '?'}master_name=ours")
    assert (address.sentinels, address.shown, address.url) == (asked, shown, first)
    assert (address.master_name, address.sentinel_login) == ("ours", login)
    assert bool(address.tls) == url.startswith("rediss")
    assert read_address("redis://h").sentinels == ()


@pytest.mark.parametrize("name", ["CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"])
def test_celery_takes_no_other_address_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("REDIS_URL", "rediss://h:2/0")
    monkeypatch.setenv(name, "redis://elsewhere:1/0")
    app = make_app(load_settings())
    for connection in (app.connection_for_read(), app.connection_for_write()):
        assert (connection.hostname, connection.port, connection.transport_cls) == ("h", 2, "rediss")
        connection.close()


@pytest.mark.parametrize(
    "url",
    ["rediss://relay:hunter2@h/0", "rediss+sentinel://relay:hunter2@h,i/0?master_name=ours&sentinel_password=ter2"],
)
def test_neither_repr_nor_settings_show_a_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    settings = load_settings()
    app = make_app(settings)
    shown = app.conf.humanize(with_defaults=True)
    told = repr(settings) + str(settings.redis) + repr(settings.model_dump()) + repr(app.conf.broker_transport_options)
    assert "ter2" not in told + shown
    assert f"{url.partition(':')[0].removeprefix('rediss+')}://relay:****" in shown
