"""What every section of the tenants file is made of: text, and secrets that are read from elsewhere."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, StringConstraints, ValidationInfo

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


def read_secret(value: object, info: ValidationInfo) -> str:
    """The secret that `env:NAME` or `file:PATH` points at."""
    kind, _, where = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind == "env":
        secret = (info.context or {}).get("environ", {}).get(where, "")
        if not secret:
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


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
