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

_PLACE: Final = re.compile(
    r"(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?:/(?P<number>[0-9]{1,9})?)?", re.IGNORECASE
)
_PORT, _HIGHEST_PORT = 6379, 65535
_ENCODE: Final = (
    "cannot be taken apart. In a user name or password, / ? # % @ : and spaces must be percent-encoded: / as %2F, "
    "? as %3F, # as %23, % as %25, @ as %40."
)
_FORM: Final = "is no address of a Redis: it must be redis://user:password@host:port/number, or rediss:// for TLS."
_SOCKET: Final = "names a Unix socket, which Celery cannot use. Let Redis listen on 127.0.0.1 and use redis://."
_SENTINEL: Final = "names a Sentinel, which is not supported yet. Use a host name or proxy that follows the primary."
#: Other schemes of redis-py and kombu.
_REFUSED: Final = {
    "unix": _SOCKET,
    "redis+socket": _SOCKET,
    "sentinel": _SENTINEL,
    "redis+sentinel": _SENTINEL,
    "rediss+sentinel": _SENTINEL,
}


@dataclass(frozen=True)
class RedisAddress:
    """Where Redis is and how to log in, in the one form that redis-py, kombu and Flower read alike."""

    #: Without options; user name and password are percent-encoded. It holds the password.
    url: str = field(repr=False)
    #: For people: host, port and number only.
    shown: str
    #: For redis-py as arguments, for Celery as `broker_use_ssl`. Empty: no TLS.
    tls: dict[str, Any]


def read_address(text: str) -> RedisAddress:
    """REDIS_URL, taken apart. Raises ValueError with the rest of a sentence that begins with `REDIS_URL`."""
    scheme, slashes, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme in _REFUSED:
        raise ValueError(_REFUSED[scheme])
    if not slashes or scheme not in ("redis", "rediss"):
        raise ValueError(_FORM)
    login, at, where, options = _split(rest)
    place = _PLACE.fullmatch(where)
    if place is None:
        raise ValueError(_ENCODE if at or ":" in where.partition("/")[0] else _FORM)
    host, port = _host(place["host"]), int(place["port"] or _PORT)
    if not 0 < port <= _HIGHEST_PORT:
        raise ValueError(f"has a port that is none: it must be 1 to {_HIGHEST_PORT}.")
    shown = f"{host}:{port}/{int(place['number'] or 0)}"
    return RedisAddress(f"{scheme}://{_login(login)}{at}{shown}", shown, _tls(scheme, options))


def _split(rest: str) -> tuple[str, str, str, str]:
    """Login, @, place and options. Raises ValueError for characters that a password has and a URL must not."""
    before, _, options = rest.partition("?")
    login, at, where = before.rpartition("@")
    if "#" in rest or "@" in options or "/" in login or not rest.isprintable() or " " in rest:
        raise ValueError(_ENCODE)
    return login, at, where, options


def _host(name: str) -> str:
    try:
        return f"[{IPv6Address(name[1:-1])}]" if name.startswith("[") else name
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
_VALUES: Final = {"ssl_cert_reqs": "it is required, optional or none", "ssl_check_hostname": "it is true or false"}


def _tls(scheme: str, text: str) -> dict[str, Any]:
    """How to verify. Without options: against the system's authorities, and the host's name."""
    options = parse_qsl(text, keep_blank_values=True)
    names = [name for name, _ in options]
    if not set(names) <= set(_OPTIONS) or len(names) != len(set(names)):
        raise ValueError(f"may have these options behind its ?, each once, and no others: {', '.join(_OPTIONS)}.")
    if scheme == "redis":
        if options:
            raise ValueError("has options for TLS: it must begin with rediss:// then.")
        return {}
    tls: dict[str, Any] = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    for name, value in options:
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
