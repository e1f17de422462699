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
from urllib.parse import parse_qsl, quote, unquote

_WHERE: Final = re.compile(r"(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
_DATABASE: Final = re.compile(r"/?|/(?P<number>[0-9]{1,9})")
_PORT, _HIGHEST_PORT = 6379, 65535
_ENCODE: Final = (
    "cannot be taken apart. In a user name or password, / ? # % @ : and spaces must be percent-encoded: / as %2F, "
    "? as %3F, # as %23, % as %25, @ as %40."
)
_FORM: Final = "is no address of a Redis: it must be redis://user:password@host:port/number, or rediss:// for TLS."
_OTHERS: Final = {
    "unix": "names a Unix socket, which Celery cannot use. Let Redis listen on 127.0.0.1 and use redis://.",
    "sentinel": "names a Sentinel, which is not supported yet. Use a host name or proxy that follows the primary.",
}
_OTHERS_AS: Final = {"redis+socket": "unix", "redis+sentinel": "sentinel", "rediss+sentinel": "sentinel"}


@dataclass(frozen=True)
class RedisAddress:
    """Where Redis is and how to log in, in the one form that redis-py, kombu and Flower read alike."""

    #: Without options; user name and password are percent-encoded. It holds the password.
    url: str = field(repr=False)
    #: For people: host, port and number only.
    shown: str
    #: For redis-py as arguments, for Celery as `broker_use_ssl`. Empty: no TLS.
    tls: dict[str, Any]


def read_address(told: str) -> RedisAddress:
    """REDIS_URL, taken apart. Raises ValueError: what `REDIS_URL` is or has, in a sentence that quotes none of it."""
    scheme, slashes, rest = told.partition("://")
    scheme = scheme.lower()
    if other := _OTHERS.get(_OTHERS_AS.get(scheme, scheme)):
        raise ValueError(other)
    if not slashes or scheme not in ("redis", "rediss"):
        raise ValueError(_FORM)
    place, options = _split(rest)
    login, at, where = place.rpartition("@")
    where, slash, number = where.partition("/")
    found, database = _WHERE.fullmatch(where), _DATABASE.fullmatch(slash + number)
    if found is None or database is None:
        raise ValueError(_ENCODE if at or ":" in where else _FORM)
    host, port = _host(found["host"]), int(found["port"] or _PORT)
    if not 0 < port <= _HIGHEST_PORT:
        raise ValueError(f"has a port that is none: it must be 1 to {_HIGHEST_PORT}.")
    shown = f"{host}:{port}/{int(database['number'] or 0)}"
    return RedisAddress(f"{scheme}://{_login(login)}{at}{shown}", shown, _tls(scheme, options))


def _split(rest: str) -> tuple[str, str]:
    """What stands before the options, and the options. A password that breaks the URL is found here."""
    place, _, options = rest.partition("?")
    login, _, _ = place.rpartition("@")
    if "#" in rest or "@" in options or "/" in login or not rest.isprintable() or " " in rest:
        raise ValueError(_ENCODE)
    return place, options


def _host(named: str) -> str:
    try:
        return f"[{IPv6Address(named[1:-1])}]" if named.startswith("[") else named
    except AddressValueError:
        raise ValueError("has a host in brackets that is no IPv6 address.") from None


def _login(told: str) -> str:
    """User name and password, encoded in the way that all read alike."""
    user, colon, password = told.partition(":")
    return quote(_decoded(user), safe="") + colon + quote(_decoded(password), safe="")


def _decoded(part: str) -> str:
    if re.search("%(?![0-9A-Fa-f]{2})", part):
        raise ValueError(_ENCODE)
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("has a percent-encoding that is not UTF-8.") from None


def _required(told: str) -> ssl.VerifyMode:
    return ssl.VerifyMode[f"CERT_{told.upper().removeprefix('CERT_')}"]


def _yes(told: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[told.lower()]


def _file(told: str) -> str:
    with Path(told).open("rb"):
        return told


#: What may stand behind the `?`, with the reader of each. The names are redis-py's and kombu's.
_OPTIONS: Final[dict[str, Callable[[str], Any]]] = {
    "ssl_cert_reqs": _required,
    "ssl_check_hostname": _yes,
    "ssl_ca_certs": _file,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
}


def _tls(scheme: str, options: str) -> dict[str, Any]:
    """How to verify. Without options: against the system's authorities, and the host's name."""
    told = parse_qsl(options, keep_blank_values=True)
    names = [name for name, _ in told]
    if not set(names) <= set(_OPTIONS) or len(names) != len(set(names)):
        raise ValueError(f"may have these options behind its ?, each once, and no others: {', '.join(_OPTIONS)}.")
    if scheme == "redis":
        if told:
            raise ValueError("has options for TLS: it must begin with rediss:// then.")
        return {}
    tls: dict[str, Any] = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    for name, value in told:
        try:
            tls[name] = _OPTIONS[name](value)
        except KeyError:
            raise ValueError(f"has a value for {name} that is none: {_VALUES[name]}.") from None
        except (OSError, ValueError):
            raise ValueError(f"names a file for {name} that cannot be read.") from None
    _load(tls)
    return tls


_VALUES: Final = {"ssl_cert_reqs": "it is required, optional or none", "ssl_check_hostname": "it is true or false"}


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
