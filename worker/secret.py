"""The secrets of the tenants file: each stands elsewhere, where `env:NAME` or `file:PATH` says."""

import base64
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo

#: The least that Standard Webhooks allows (standardwebhooks.com, "Signature scheme").
_SIGNING_BYTES: Final = 24
#: A shorter secret can be guessed by trying.
EASY_BELOW: Final = 16  # characters


def read_secret(value: object, info: ValidationInfo) -> str:
    """The secret that `env:NAME` or `file:PATH` points at."""
    kind, _, where = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind == "env":
        secret = (info.context or {}).get("environ", {}).get(where, "")
        if not secret.strip():
            raise ValueError(f"the environment has no {where}: set it")
    elif kind == "file":
        try:
            secret = Path(where).read_text().strip()
        except OSError as error:
            raise ValueError(f"cannot read {where}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"cannot read {where}: not text") from None
        if not secret:
            raise ValueError(f"{where} is empty")
    else:
        raise ValueError("a secret does not belong in this file: write env:NAME or file:PATH")
    return str(secret)


Secret = Annotated[SecretStr, BeforeValidator(read_secret)]


def _signing_secret(secret: SecretStr) -> SecretStr:
    try:
        decoded = base64.b64decode(secret.get_secret_value().removeprefix("whsec_") + "==")
    except ValueError:
        decoded = b""
    if len(decoded) < _SIGNING_BYTES:
        raise ValueError(
            f"a Standard Webhooks secret is base64, perhaps behind whsec_, of {_SIGNING_BYTES} bytes or more; this has "
            f"{len(decoded)} and can be guessed. Agree on a new one with the sender: `openssl rand -base64 32` makes it"
        )
    return secret


SigningSecret = Annotated[Secret, AfterValidator(_signing_secret)]
