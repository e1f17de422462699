"""The tenants file: each association's sources, its Rhythm, its exam map. Reads the file and the secrets that it names.

A mistake is one message with file, tenant and key. A secret is given as `env:NAME` or `file:PATH`, never in the file.
"""

import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from schemas.outcome import Source
from schemas.platform import platform_of
from worker.errors import ConfigurationError, Unacceptable
from worker.exam_map import Exam, mistakes, senders_of
from worker.remote import RhythmConnection
from worker.secret import Secret, SigningSecret
from worker.sections import Section, Text
from worker.users import Console, ConsoleSection

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class BasicCredentials(Section):
    """HTTP Basic, as Drillster and Certiverse send it."""

    kind: Literal["basic"]
    user: Text
    password: Secret


class BearerCredentials(Section):
    """`Authorization: Bearer TOKEN`."""

    kind: Literal["bearer"]
    token: Secret


class HeaderCredentials(Section):
    """A header of the sender's own, such as `X-Api-Key: VALUE`."""

    kind: Literal["header"]
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
    value: Secret


class WebhookCredentials(Section):
    """A signature over the body, an id and the time (standardwebhooks.com)."""

    kind: Literal["standard-webhooks"]
    secret: SigningSecret


class BodyKeys(Section):
    """Members of the body itself, as Prov's partner interface has them: `{"apiKey": …, "secretKey": …, …}`."""

    kind: Literal["body-keys"]
    keys: Annotated[dict[Text, Secret], Field(min_length=1)]


ReadCredentials = Annotated[BasicCredentials | BearerCredentials | HeaderCredentials, Field(discriminator="kind")]
Credentials = Annotated[
    BasicCredentials | BearerCredentials | HeaderCredentials | WebhookCredentials | BodyKeys,
    Field(discriminator="kind"),
]


class SourceRules(Section):
    """Who may send a source's events, and what in them may name a registration."""

    credentials: Annotated[tuple[Credentials, ...], Field(min_length=1)]
    registration_ids: tuple[Text, ...] = ("eligibilityId",)
    #: The third party whose id is Rhythm's student id, of a platform that sends third party ids (Drillster).
    third_party: Text | None = None


class Tenant(Section):
    """One association and its Rhythm account."""

    writes: Literal["on", "hold"] = "on"
    rescore_order: Literal["hold", "received"] = "hold"
    read_credentials: ReadCredentials | None = None
    rhythm: RhythmConnection
    sources: dict[Source, SourceRules]
    exams: tuple[Exam, ...] = ()

    @model_validator(mode="after")
    def _each_code_names_one_exam(self) -> "Tenant":
        seen: dict[str, str] = {}
        for exam in self.exams:
            for code in exam.codes:
                if seen.setdefault(code, exam.exam_id) != exam.exam_id:
                    raise ValueError(f"code {code} names two exams, {seen[code]} and {exam.exam_id}")
        codes = Counter(code for exam in self.exams for code in exam.codes)
        if twice := [code for code, times in codes.items() if times > 1]:
            raise ValueError(f"code {twice[0]} is there twice: which line of exam {seen[twice[0]]} counts?")
        return self

    @model_validator(mode="after")
    def _names_what_a_platform_sends(self) -> "Tenant":
        problems = [*_of_sources(self.sources)]
        platforms = [platform_of(source) for source in self.sources]
        for place, exam in enumerate(self.exams if platforms else ()):
            problems += [(("exams", place, *key), what) for key, what in mistakes(exam, platforms)]
        if problems:
            raise ValidationError.from_exception_data("Tenant", [_line(key, what) for key, what in problems])
        return self

    def exam_for(self, codes: tuple[str, ...]) -> Exam | None:
        """The exam that the first known of `codes` names, or None."""
        by_code = {code: exam for exam in self.exams for code in exam.codes}
        return next((by_code[code] for code in codes if code in by_code), None)


#: A mistake: the key's place, and what is wrong with it.
_Problem = tuple[tuple[str | int, ...], str]


def _line(key: tuple[str | int, ...], what: str) -> InitErrorDetails:
    return {"type": PydanticCustomError("tenants", "{what}", {"what": what}), "loc": key, "input": None}


def _of_sources(sources: Mapping[Source, SourceRules]) -> Iterator[_Problem]:
    for source, rules in sources.items():
        platform = platform_of(source)
        never = [id for id in rules.registration_ids if id not in platform.registration_ids]
        if never and "registration_ids" in rules.model_fields_set:
            sent = ", ".join(platform.registration_ids) or "none"
            yield ("sources", source, "registration_ids"), f"{source} never sends {never[0]}; it sends: {sent}"
        if rules.third_party and not platform.third_party_ids:
            only = senders_of("third_party_ids")
            yield ("sources", source, "third_party"), f"{source} sends no third party ids: only {only}"


class Tenants(Section):
    """The whole file."""

    tenants: Annotated[dict[Name, Tenant], Field(min_length=1)]
    console: ConsoleSection = Console()
    #: Of the file's bytes: processes that run on different files show different digests.
    digest: str = ""

    def __getitem__(self, name: str) -> Tenant:
        return self.tenants[name]

    def find(self, tenant: object, source: object) -> SourceRules | None:
        """The rules of a tenant's source, named by a stranger; None when there is no such tenant or source."""
        if not isinstance(tenant, str) or tenant not in self.tenants:
            return None
        return next((rules for name, rules in self.tenants[tenant].sources.items() if name == source), None)

    def rules(self, tenant: object, source: object) -> SourceRules:
        """The rules of a tenant's source. Raises Unacceptable, with the names that there are."""
        if not isinstance(tenant, str) or tenant not in self.tenants:
            raise Unacceptable(f"there is no such tenant; there are: {', '.join(self.tenants)}")
        rules = self.find(tenant, source)
        if rules is None:
            raise Unacceptable(f"this tenant has no such source; it has: {', '.join(self.tenants[tenant].sources)}")
        return rules


def load_tenants(path: Path, environ: Mapping[str, str]) -> Tenants:
    """Read and check the tenants file.

    Raises ConfigurationError: unreadable, not TOML, or a key that is wrong, each named with file, tenant and key.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read ({error.strerror}). Set EXAMRELAY_CONFIG to your tenants file; "
            "examrelay.example.toml shows every option."
        ) from None
    try:
        document: dict[str, Any] = tomllib.loads(content.decode())
        return Tenants.model_validate(
            {**document, "digest": hashlib.sha256(content).hexdigest()[:12]}, context={"environ": environ}
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None
    except ValidationError as error:
        raise ConfigurationError("\n".join(f"{path}: {line}" for line in _problems(error))) from None


def _problems(error: ValidationError) -> list[str]:
    """One line a mistake: the key's whole place in the file, and what is wrong with it."""
    lines = []
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    for problem in problems:
        place = problem["loc"]
        if problem["type"] == "too_short" and any(
            place == other["loc"][: len(place)] != other["loc"] for other in problems
        ):
            continue  # the list is not empty: one of its entries is wrong, and has its own line
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key (a misspelling?)"
        lines.append(f"{'.'.join(str(part) for part in place)}: {message}")
    return lines
