"""REDIS_URL, read once for every part: redis-py, Celery (kombu) and Flower each read a URL in another way.

What one of them cannot use is refused for all. No message quotes any of it: where the password breaks the URL, any part
of it may be the password's.
"""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

_HOST: Final = r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
_PLACE: Final = re.compile(rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/(?P<number>[0-9]{{1,9}})?)?", re.IGNORECASE)
_HIGHEST_PORT: Final = 65535
_ENCODE: Final = (
    "cannot be taken apart. In a user name or password, / ? # % @ : and spaces must be percent-encoded: / as %2F, "
    "? as %3F, # as %23, % as %25, @ as %40."
)
_FORM: Final = (
    "is no address of a Redis: it must be redis://user:password@host:port/number, or rediss:// for TLS; or, for "
    "Sentinel, sentinel://user:password@host:port,host:port/number?master_name=NAME, or rediss+sentinel:// for TLS."
)
_SOCKET: Final = "names a Unix socket, which Celery cannot use. Let Redis listen on 127.0.0.1 and use redis://."
_UNNAMED: Final = "must name the primary that the sentinels watch: ?master_name=NAME, as in `sentinel monitor NAME …`."
#: Schemes, with the port that is meant where none is given.
_PORTS: Final = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "rediss+sentinel": 26379}


@dataclass(frozen=True)
class RedisAddress:
    """Where Redis is and how to log in, in the one form that redis-py, kombu and Flower read alike."""

    #: Without options; user name and password are percent-encoded. It holds the password. Of several sentinels it has
    #: the first, and always `sentinel://`.
    url: str = field(repr=False)
    #: For people: hosts, ports and number only.
    shown: str
    #: For redis-py as arguments, for Celery as `broker_use_ssl`. Empty: no TLS.
    tls: dict[str, Any]
    #: Who is asked for the primary. Empty: the address is Redis' own.
    sentinels: tuple[tuple[str, int], ...] = ()
    #: What the sentinels call the primary.
    master_name: str = ""
    #: `username` and `password` for the sentinels.
    sentinel_login: dict[str, str] = field(default_factory=dict, repr=False)


def read_address(text: str) -> RedisAddress:
    """REDIS_URL, taken apart. Raises ValueError with the rest of a sentence that begins with `REDIS_URL`."""
    scheme, slashes, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme in ("unix", "redis+socket"):
        raise ValueError(_SOCKET)
    if not slashes or scheme not in _PORTS:
        raise ValueError(_FORM)
    kind = scheme.removeprefix("rediss+")
    login, at, where, options = _split(rest)
    place = _PLACE.fullmatch(where)
    if place is None:
        raise ValueError(_ENCODE if at or ":" in where.partition("/")[0] else _FORM)
    hosts = [_host(one, _PORTS[scheme]) for one in place["hosts"].split(",")]
    if len(hosts) > 1 and kind != "sentinel":
        raise ValueError(_FORM)
    first, *more = (f"{host}:{port}" for host, port in hosts)
    number = int(place["number"] or 0)
    named = _options(kind, options)
    login_there = {name: named.pop(f"sentinel_{name}") for name in _LOGIN if f"sentinel_{name}" in named}
    return RedisAddress(
        f"{kind}://{_login(login)}{at}{first}/{number}",
        f"{','.join((first, *more))}/{number}",
        master_name=named.pop("master_name", ""),
        tls=_tls(scheme, named),
        sentinels=tuple((host.strip("[]"), port) for host, port in hosts) if kind == "sentinel" else (),
        sentinel_login=login_there,
    )


def _split(rest: str) -> tuple[str, str, str, str]:
    """Login, @, place and options. Raises ValueError for characters that a password has and a URL must not."""
    before, _, options = rest.partition("?")
    login, at, where = before.rpartition("@")
    if "#" in rest or "@" in options or "/" in login or not rest.isprintable() or " " in rest:
        raise ValueError(_ENCODE)
    return login, at, where, options


def _host(text: str, standard: int) -> tuple[str, int]:
    """A host, in brackets where it is an IPv6 address, and its port."""
    name, bracket, port = text.rpartition("]") if text.startswith("[") else ("", "", text)
    host, _, port = port.partition(":")
    if not 0 < int(port or standard) <= _HIGHEST_PORT:
        raise ValueError(f"has a port that is none: it must be 1 to {_HIGHEST_PORT}.")
    try:
        return f"[{IPv6Address(name[1:])}]" if bracket else host, int(port or standard)
    except AddressValueError:
        raise ValueError("has a host in brackets that is no IPv6 address.") from None


def _login(text: str) -> str:
    """User name and password, encoded in the way that all read alike."""
    user, colon, password = text.partition(":")
    return quote(_decoded(user), safe="") + colon + quote(_decoded(password), safe="")


def _decoded(part: str) -> str:
    if re.search("%(?![0-9A-Fa-f]{2})", part):
        raise ValueError(_ENCODE)
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("has a percent-encoding that is not UTF-8.") from None


def _verify_mode(value: str) -> ssl.VerifyMode:
    return ssl.VerifyMode[f"CERT_{value.upper().removeprefix('CERT_')}"]


def _boolean(value: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[value.lower()]


def _file(path: str) -> str:
    with Path(path).open("rb"):
        return path


#: What may stand behind the `?`, with the reader of each. The names are redis-py's and kombu's.
_OPTIONS: Final[dict[str, Callable[[str], Any]]] = {
    "ssl_cert_reqs": _verify_mode,
    "ssl_check_hostname": _boolean,
    "ssl_ca_certs": _file,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
}
_LOGIN: Final = ("username", "password")
#: For Sentinel, besides. What is not given of the login is not sent: by default sentinels ask for none.
_OF_SENTINEL: Final = ("master_name", *(f"sentinel_{name}" for name in _LOGIN))
_VALUES: Final = {"ssl_cert_reqs": "it is required, optional or none", "ssl_check_hostname": "it is true or false"}


def _options(kind: str, text: str) -> dict[str, str]:
    """The options by name. Unlike in a form, a + is a +, as in the password before the @."""
    known = (*_OPTIONS, *(_OF_SENTINEL if kind == "sentinel" else ()))
    pairs = [one.partition("=")[::2] for one in text.split("&") if one]
    named = {name: _decoded(value) for name, value in pairs if name in known}
    if len(named) != len(pairs):
        raise ValueError(f"may have these options behind its ?, each once, and no others: {', '.join(known)}.")
    if kind == "sentinel" and not named.get("master_name"):
        raise ValueError(_UNNAMED)
    return named


def _tls(scheme: str, options: dict[str, str]) -> dict[str, Any]:
    """How to verify. Without options: against the system's authorities, and the host's name."""
    if not scheme.startswith("rediss"):
        if options:
            raise ValueError("has options for TLS: it must begin with rediss:// then, or rediss+sentinel://.")
        return {}
    tls: dict[str, Any] = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    for name, value in options.items():
        try:
            tls[name] = _OPTIONS[name](value)
        except KeyError:
            raise ValueError(f"has a value for {name} that is none: {_VALUES[name]}.") from None
        except (OSError, ValueError):
            raise ValueError(f"names a file for {name} that cannot be read.") from None
    _load(tls)
    return tls


def _load(tls: dict[str, Any]) -> None:
    """Whether the files hold certificates and a key. Raises ValueError; each connection would fail on them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if "ssl_ca_certs" in tls:
            context.load_verify_locations(tls["ssl_ca_certs"])
        if "ssl_keyfile" in tls or "ssl_certfile" in tls:
            # An empty password: OpenSSL would ask for one on the terminal.
            context.load_cert_chain(tls["ssl_certfile"], tls.get("ssl_keyfile"), password="")
    except KeyError:
        raise ValueError("has ssl_keyfile without ssl_certfile.") from None
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise ValueError(
            "names files for TLS that cannot be used: ssl_ca_certs and ssl_certfile must be certificates in PEM, and "
            "ssl_keyfile the certificate's key, without a password."
        ) from None
