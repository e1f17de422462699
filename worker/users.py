"""The tenants file's lines about people: who may sign in to the console, what each may do, and for which tenants."""

import re
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from worker.sections import Section

#: What argon2 makes of a password: its costs, the salt, the hash.
_HASH: Final = re.compile(r"\$argon2id\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{22,}")
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]


class Role(StrEnum):
    """What a user may do."""

    #: Look at everything of their tenants; each look at personal data is recorded.
    SEE = "see"
    #: Decide as well: send on, answer, set aside.
    ACT = "act"


def _hash(value: SecretStr) -> SecretStr:
    if not _HASH.fullmatch(value.get_secret_value()):
        raise ValueError("not the hash of a password: `examrelay console --hash` makes one")
    return value


class User(Section):
    """One person who may sign in."""

    password: Annotated[SecretStr, AfterValidator(_hash)]
    role: Role
    tenants: Annotated[tuple[str, ...], Field(min_length=1)]


class Console(Section):
    """The section `console`."""

    users: dict[_Name, User] = {}


def _of_tenants_there_are(console: Console, info: ValidationInfo) -> Console:
    there = info.data.get("tenants")
    lines: list[InitErrorDetails] = [
        {
            "type": PydanticCustomError("tenants", "there is no tenant {name}", {"name": name}),
            "loc": ("users", user, "tenants"),
            "input": None,
        }
        for user, rules in console.users.items()
        for name in rules.tenants
        if there is not None and name not in there
    ]
    if lines:
        raise ValidationError.from_exception_data("Console", lines)
    return console


#: As a field behind `tenants`: each user's tenants are among those.
ConsoleSection = Annotated[Console, AfterValidator(_of_tenants_there_are)]
