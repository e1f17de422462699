"""Where our servers listen: an address and a port, IPv6 too, and the URL by which this machine reaches them."""

import resource
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

from worker.errors import ConfigurationError

#: As many as some 250 MB can hold.
_FILES: Final = 16_384


def listen(host: str, port: int, variables: str) -> socket.socket:
    """A socket. Empty: all of IPv4; `::`: IPv4 as well. Raises ConfigurationError when it cannot be had.

    Lets this process have many connections, as far as it may: by default a shell and systemd allow 1,024 files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0] if host else socket.AF_INET
        return socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{f'{host}:' if host else 'port '}{port} cannot be had ({getattr(error, 'strerror', None) or error}). Set "
            f"{variables} to an address of this machine and a free port, or end what uses it."
        ) from None


def url_of(host: str, port: int) -> str:
    """Where a server of this machine answers. One that listens on all interfaces answers on loopback."""
    try:
        address = ip_address(host or 0)
    except ValueError:
        return f"http://{host}:{port}"
    own = ip_address("127.0.0.1" if address.version == 4 else "::1") if address.is_unspecified else address
    return f"http://{own}:{port}" if own.version == 4 else f"http://[{own}]:{port}"
