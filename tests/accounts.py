"""A Valkey with the accounts of `deploy/users.acl`, and the URL of each, over TLS with a client certificate."""

import hashlib
import re
from pathlib import Path

from tests.running import ROOT, Valkey
from tests.tls import Authority, TlsFront

USERS_FILE = ROOT / "deploy" / "users.acl"
USERS = re.findall(r"^user (\w+) on ", USERS_FILE.read_text(), re.MULTILINE)


def password(user: str) -> str:
    """Of a user of the file."""
    return f"{user}/hunter2?"


def _loaded(folder: Path) -> Path:
    """The file as its first lines say: passwords' hashes filled in, and no comments."""
    text = USERS_FILE.read_text()
    for user in USERS:
        text = text.replace(f"{user.upper()}_SHA256", hashlib.sha256(password(user).encode()).hexdigest())
    made = folder / "users.acl"
    made.write_text("".join(line for line in text.splitlines(keepends=True) if line.startswith("user")))
    return made


def valkey_with_accounts(folder: Path) -> Valkey:
    """Not started. Its `url` is the administrator's."""
    valkey = Valkey(aclfile=str(_loaded(folder)))
    valkey.url = f"redis://admin:{encoded('admin')}@127.0.0.1:{valkey.port}/0"
    return valkey


def encoded(user: str) -> str:
    """The password as a URL has it."""
    return password(user).replace("/", "%2F").replace("?", "%3F")


def url_over_tls(user: str, front: TlsFront, authority: Authority, certificate: tuple[Path, Path]) -> str:
    """What REDIS_URL of this user's processes is."""
    options = f"ssl_ca_certs={authority.file}&ssl_certfile={certificate[0]}&ssl_keyfile={certificate[1]}"
    return f"rediss://{user}:{encoded(user)}@127.0.0.1:{front.port}/0?{options}"
