"""The tenants file: what it means, and for each mistake one line that says where it is and what to do."""

from pathlib import Path
from typing import Any

import pytest

from schemas.outcome import Source
from worker.errors import ConfigurationError
from worker.remote import ApiKey
from worker.tenants import Tenants, load_tenants

ENVIRON = {
    "KEY": "rhythm-key",
    "PASSWORD": "pass-word",
    "EMPTY": "",
    "UNESCAPED_PROXY": "http://relay:hunter2/x@proxy:3128",
}
GOOD = """
[tenants.acme]
writes = "hold"
[tenants.acme.rhythm]
url = "https://certifications.example.org/"
tenant_id = "acme.org"
credentials = { kind = "api_key", key = "env:KEY" }
[tenants.acme.sources.certiverse]
credentials = [ { kind = "basic", user = "certiverse", password = "env:PASSWORD" } ]
[[tenants.acme.exams]]
exam_id = "exam-1"
codes = ["CERT-1", "CERT-1B"]
threshold = 70.1
[[tenants.acme.exams]]
exam_id = "exam-2"
codes = ["CERT-2"]
"""
KEY, PASSWORD, ACME = '"env:KEY"', '"env:PASSWORD"', "tenants.acme"
RHYTHM, CERTIVERSE, EXAMS = f"{ACME}.rhythm", f"{ACME}.sources.certiverse", f"{ACME}.exams"
SECRET_HERE = "a secret does not belong in this file: write env:NAME or file:PATH"
NOT_HTTPS = "must start with https:// (http:// only on this machine)"
NO_PROXY = "must be http://host:port; with a login, env:NAME of http://user:password@host:port, encoded"
IMPOSSIBLE = "not a possible threshold: a percentage is 0 to 100, and no score is below 0"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "examrelay.toml"


def load(path: Path, text: str | bytes) -> Tenants:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_tenants(path, ENVIRON)


def complaint(path: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(path, text)
    return str(caught.value)


def test_the_file_says_who_where_and_which_exam(path: Path) -> None:
    acme = load(path, GOOD)["acme"]
    assert (acme.writes, acme.rescore_order, acme.rhythm.url) == ("hold", "hold", "https://certifications.example.org")
    assert isinstance(acme.rhythm.credentials, ApiKey)
    assert acme.rhythm.credentials.key.get_secret_value() == "rhythm-key"
    assert list(acme.sources) == [Source.CERTIVERSE]
    assert str(acme.exams[0].threshold) == "70.1"


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (("CERT-1",), "exam-1"),
        (("CERT-1B",), "exam-1"),
        (("CERT-9", "CERT-2"), "exam-2"),
        (("CERT-2", "CERT-1"), "exam-2"),
        (("cert-1",), None),
        (("CERT-9",), None),
        ((), None),
    ],
)
def test_the_first_code_that_is_known_names_the_exam(path: Path, codes: tuple[str, ...], expected: str | None) -> None:
    exam = load(path, GOOD)["acme"].exam_for(codes)
    assert (exam and exam.exam_id) == expected


@pytest.mark.parametrize(
    "proxy", ["http://proxy.example.org:3128", "http://[::1]:3128/", "env:PROXY", "http://10.0.0.1:1"]
)
def test_a_proxy_is_read_and_its_password_is_shown_nowhere(path: Path, proxy: str) -> None:
    text = edited('tenant_id = "acme.org"', f'tenant_id = "acme.org"\nproxy = "{proxy}"')
    path.write_text(text)
    found = load_tenants(path, ENVIRON | {"PROXY": "http://relay:hunter2%2F@proxy:3128"})
    told = found["acme"].rhythm.proxy
    assert told is not None
    wanted = "http://relay:hunter2%2F@proxy:3128" if proxy.startswith("env") else proxy.rstrip("/")
    assert told.get_secret_value() == wanted
    assert "hunter2" not in repr(found) + str(found.model_dump(mode="json"))


def edited(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


USER = """
[console.users.ann]
password = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$c29tZWhhc2hzb21laGFzaHNvbWVoYXNoc29tZWhhc2g"
role = "see"
tenants = ["acme"]
"""
ANN = "console.users.ann"


def test_a_user_has_a_role_and_tenants_and_no_readable_password(path: Path) -> None:
    found = load(path, GOOD + USER)
    ann = found.console.users["ann"]
    assert (ann.role, ann.tenants) == ("see", ("acme",))
    assert "c29tZ" not in repr(found) + str(found.model_dump(mode="json"))
    assert load(path, GOOD).console.users == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param(
            GOOD + USER.replace("$argon2id$v=19$m", "hunter2-m"),
            f"{ANN}.password: not the hash of a password: `examrelay console --hash` makes one",
            id="a password in the clear",
        ),
        pytest.param(
            GOOD + USER.replace('["acme"]', '["acme", "beta"]'),
            f"{ANN}.tenants: there is no tenant beta",
            id="a user of a tenant that there is not",
        ),
        pytest.param(
            GOOD + USER.replace('"see"', '"all"'), f"{ANN}.role: Input should be 'see' or 'act'", id="no such role"
        ),
        pytest.param(
            GOOD + USER + "rule = 1\n", f"{ANN}.rule: unknown key (a misspelling?)", id="a user's unknown key"
        ),
        pytest.param(
            edited('tenant_id = "acme.org"', 'tenant_id = "acme.org"\nproxy = "http://relay:hunter2@proxy:3128"'),
            f"{RHYTHM}.proxy: {SECRET_HERE}",
            id="a proxy with its password",
        ),
        *(
            pytest.param(
                edited('tenant_id = "acme.org"', f'tenant_id = "acme.org"\nproxy = "{proxy}"'),
                f"{RHYTHM}.proxy: {NO_PROXY}",
                id=f"proxy {proxy}",
            )
            for proxy in (
                "http://proxy",
                "http://proxy:0",
                "http://proxy:65536",
                "https://proxy:3128",
                "socks5://proxy:1080",
                "http://proxy:3128/way",
                "http://pro xy:3128",
                "env:UNESCAPED_PROXY",
            )
        ),
        pytest.param(
            edited('tenant_id = "acme.org"', 'tenant_id = "acme.org"\nproxy = "env:NO_SUCH_PROXY"'),
            f"{RHYTHM}.proxy: the environment has no NO_SUCH_PROXY: set it",
            id="a proxy that is not set",
        ),
        pytest.param(
            edited('tenant_id = "acme.org"', 'tenant_id = "acme.org"\nca_file = "/not/there.pem"'),
            f"{RHYTHM}.ca_file: cannot read /not/there.pem: No such file or directory",
            id="no ca_file",
        ),
        pytest.param(
            edited('tenant_id = "acme.org"', f'tenant_id = "acme.org"\nca_file = "{__file__}"'),
            f"{RHYTHM}.ca_file: {__file__} holds no certificates in PEM",
            id="a ca_file that is none",
        ),
        pytest.param(edited("writes =", "wirtes ="), f"{ACME}.wirtes: unknown key (a misspelling?)", id="unknown key"),
        pytest.param(
            edited("threshold", "treshold"),
            f"{EXAMS}.0.treshold: unknown key (a misspelling?)",
            id="unknown key in a list",
        ),
        pytest.param("extra = 1" + GOOD, "extra: unknown key (a misspelling?)", id="unknown table"),
        pytest.param(edited('tenant_id = "acme.org"\n', ""), f"{RHYTHM}.tenant_id: Field required", id="missing"),
        pytest.param("", "tenants: Field required", id="an empty file"),
        pytest.param(
            "[tenants]", "tenants: Dictionary should have at least 1 item after validation, not 0", id="no tenant"
        ),
        pytest.param(
            edited('codes = ["CERT-2"]', "codes = 2"),
            f"{EXAMS}.1.codes: Input should be a valid tuple",
            id="wrong type",
        ),
        pytest.param(
            edited('codes = ["CERT-2"]', "codes = []"),
            f"{EXAMS}.1.codes: Tuple should have at least 1 item after validation, not 0",
            id="no codes",
        ),
        pytest.param(
            edited('"acme.org"', '" "'), f"{RHYTHM}.tenant_id: String should have at least 1 character", id="blank"
        ),
        pytest.param(edited('"hold"', '"off"'), f"{ACME}.writes: Input should be 'on' or 'hold'", id="not a choice"),
        pytest.param(
            edited(KEY, '"rhythm-key"'), f"{RHYTHM}.credentials.api_key.key: {SECRET_HERE}", id="a secret as itself"
        ),
        pytest.param(
            edited(PASSWORD, "7"),
            f"{CERTIVERSE}.credentials.0.basic.password: {SECRET_HERE}",
            id="a secret as a number",
        ),
        pytest.param(
            edited(KEY, '"env:NOT_THERE"'),
            f"{RHYTHM}.credentials.api_key.key: the environment has no NOT_THERE: set it",
            id="no variable",
        ),
        pytest.param(
            edited(KEY, '"env:EMPTY"'),
            f"{RHYTHM}.credentials.api_key.key: the environment has no EMPTY: set it",
            id="an empty variable",
        ),
        pytest.param(
            edited(KEY, '"file:/not/there"'),
            f"{RHYTHM}.credentials.api_key.key: cannot read /not/there: No such file or directory",
            id="no file",
        ),
        pytest.param(
            edited(KEY, '"file:/dev/null"'),
            f"{RHYTHM}.credentials.api_key.key: /dev/null is empty",
            id="an empty file for a secret",
        ),
        pytest.param(
            edited('"CERT-2"', '"CERT-1B"'),
            f"{ACME}: code CERT-1B names two exams, exam-1 and exam-2",
            id="a code that names two exams",
        ),
        pytest.param(
            edited("https://certifications.example.org/", "http://certifications.example.org"),
            f"{RHYTHM}.url: {NOT_HTTPS}",
            id="http",
        ),
        pytest.param(
            edited("https://certifications.example.org/", "http://localhost.example.org"),
            f"{RHYTHM}.url: {NOT_HTTPS}",
            id="http to a name that only begins like this machine's",
        ),
        pytest.param(
            edited("https://certifications.example.org/", "https://"), f"{RHYTHM}.url: {NOT_HTTPS}", id="no host"
        ),
        pytest.param(
            edited('user = "certiverse", ', ""),
            f"{CERTIVERSE}.credentials.0.basic.user: Field required",
            id="missing in an inline table",
        ),
    ],
)
def test_a_mistake_is_one_line_with_file_tenant_and_key(path: Path, text: str, line: str) -> None:
    assert complaint(path, text) == f"{path}: {line}"


def mapped(line: str, sources: str = "") -> str:
    """The file with another line in its last exam, and other sources."""
    return GOOD + line + "\n" + sources


DRILLSTER = f"""[tenants.acme.sources.drillster]
credentials = [ {{ kind = "basic", user = "d", password = {PASSWORD} }} ]
"""
SCORES = "cut, max_minutes, max_raw, minutes, percent, raw, reported, scaled"
FIELD = "exams__a__c"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        *(
            pytest.param(
                mapped(f'score = "{name}"'),
                f"{EXAMS}.1.score: no platform of this tenant sends a score {name}; there are: {SCORES}",
                id=name,
            )
            for name in ("scalled", "Scaled", "score", "reportedScore", "robust_percent", "sca.led")
        ),
        pytest.param(mapped("threshold = -1"), f"{EXAMS}.1.threshold: {IMPOSSIBLE}", id="a threshold below 0"),
        pytest.param(
            mapped('score = "percent"\nthreshold = 100.5'),
            f"{EXAMS}.1.threshold: {IMPOSSIBLE}",
            id="a threshold over 100 percent",
        ),
        pytest.param(
            mapped('transformation = "t"'),
            f"{EXAMS}.1.transformation: no platform of this tenant sends transformations: only Drillster does",
            id="a transformation without Drillster",
        ),
        pytest.param(
            mapped('status_words = { passed = "failed" }'),
            f"{EXAMS}.1.status_words.passed: passed cannot be written as failed",
            id="the contrary",
        ),
        pytest.param(
            mapped('status_words = { failed = "passed" }'),
            f"{EXAMS}.1.status_words.failed: failed cannot be written as passed",
            id="the other contrary",
        ),
        pytest.param(
            mapped(f"""custom_fields = [{{ id = "{FIELD}", value = "delivery" }},
                                                {{ id = "{FIELD}", value = "scores.raw" }}]"""),
            f"{EXAMS}.1.custom_fields.1.id: {FIELD} is filled twice",
            id="a field twice",
        ),
        pytest.param(
            edited('codes = ["CERT-2"]', 'codes = ["CERT-2", "CERT-2"]'),
            f"{ACME}: code CERT-2 is there twice: which line of exam exam-2 counts?",
            id="a code twice",
        ),
        pytest.param(
            GOOD + '[[tenants.acme.exams]]\nexam_id = "exam-2"\ncodes = ["CERT-2"]\nscore = "raw"',
            f"{ACME}: code CERT-2 is there twice: which line of exam exam-2 counts?",
            id="a code in two lines of one exam",
        ),
        pytest.param(
            edited(BASIC := f"{PASSWORD} }} ]", f'{BASIC}\nthird_party = "X"'),
            f"{CERTIVERSE}.third_party: certiverse sends no third party ids: only Drillster does",
            id="a third party of Certiverse",
        ),
        pytest.param(
            edited(BASIC, f'{BASIC}\nregistration_ids = ["ticket.reference"]'),
            f"{CERTIVERSE}.registration_ids: certiverse never sends ticket.reference; "
            "it sends: eligibilityId, bookingId",
            id="an id of another platform",
        ),
    ],
)
def test_what_the_tenant_s_platforms_cannot_mean_is_refused_with_what_they_can(
    path: Path, text: str, line: str
) -> None:
    assert complaint(path, text) == f"{path}: {line}"


@pytest.mark.parametrize(
    "value",
    [
        "scores.scalled",
        "Scores.raw",
        "details.examForm",
        "details",
        "parts.topic.Ethics",
        "parts.topic.Ethics.scaled",
        "parts.domain.Ethics.percent",
        "event_ref",
        "verdict",
        "details.test.id",
    ],
)
def test_a_custom_field_of_what_no_platform_sends_is_refused_with_all_that_could_be_meant(
    path: Path, value: str
) -> None:
    told = complaint(path, mapped(f'custom_fields = [{{ id = "{FIELD}", value = "{value}" }}]'))
    begins = f"{path}: {EXAMS}.1.custom_fields.0.value: no platform of this tenant sends {value}; there are: delivery, "
    assert told.startswith(begins)
    assert {"scores.scaled", "details.customData.NAME", "parts.topic.NAME.percent"} <= set(told.split(", "))


@pytest.mark.parametrize(
    "text",
    [
        mapped('score = "scaled"\nthreshold = 450', DRILLSTER),
        mapped('score = "percent"\nthreshold = 100', DRILLSTER),
        mapped('transformation = "t"', DRILLSTER),
        mapped(f'custom_fields = [{{ id = "{FIELD}", value = "event_ref" }}]', DRILLSTER),
        mapped('status_words = { failed = "no show" }', DRILLSTER),
        mapped("", DRILLSTER + 'third_party = "X"\nregistration_ids = []'),
        GOOD + '[[tenants.acme.exams]]\nexam_id = "exam-2"\ncodes = ["CERT-3"]\nscore = "raw"',
    ],
)
def test_what_one_of_the_platforms_sends_may_be_named(path: Path, text: str) -> None:
    assert load(path, text)["acme"].exams


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        pytest.param(edited("[tenants.acme]", "[tenants.Acme Inc]"), "not TOML: ", id="not TOML"),
        pytest.param(b"\xff" + GOOD.encode(), "not TOML: ", id="not UTF-8"),
        pytest.param(edited('"api_key"', '"password"'), f"{RHYTHM}.credentials: ", id="no such kind of credentials"),
        pytest.param(GOOD.replace(".certiverse", ".certivers"), f"{ACME}.sources.certivers", id="no such source"),
        pytest.param(GOOD.replace("acme]", "Acme]").replace("acme.", "Acme."), "tenants.Acme", id="no tenant's name"),
        pytest.param(edited("threshold = 70.1", "threshold = nan"), f"{EXAMS}.0.threshold: ", id="not a number"),
    ],
)
def test_the_place_of_other_mistakes_is_told_as_well(path: Path, text: str | bytes, begins: str) -> None:
    (line,) = complaint(path, text).splitlines()
    assert line.startswith(f"{path}: {begins}")


def test_two_mistakes_are_two_lines(path: Path) -> None:
    told = complaint(path, edited("writes =", "wirtes =").replace('tenant_id = "acme.org"\n', ""))
    assert len(told.splitlines()) == 2


def test_no_complaint_repeats_a_secret(path: Path) -> None:
    told = complaint(path, edited(KEY, '"rhythm-key"').replace(PASSWORD, '"pass-word"'))
    assert not any(secret in told for secret in ENVIRON.values() if secret)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:9", "https://x.org"])
def test_http_is_for_this_machine_only(path: Path, url: str) -> None:
    assert load(path, edited("https://certifications.example.org/", url))["acme"].rhythm.url == url


def test_a_secret_in_a_file_is_read_without_its_line_end(path: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-a-file\n")
    credentials: Any = load(path, edited(KEY, f'"file:{tmp_path}/secret"'))["acme"].rhythm.credentials
    assert credentials.key.get_secret_value() == "from-a-file"
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    assert "not text" in complaint(path, edited(KEY, f'"file:{tmp_path}/secret"'))


def test_a_file_that_cannot_be_read_says_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.toml: cannot be read .* Set EXAMRELAY_CONFIG"):
        load_tenants(tmp_path / "nowhere.toml", ENVIRON)


def test_files_that_differ_have_different_digests(path: Path) -> None:
    assert load(path, GOOD).digest == load(path, GOOD).digest != load(path, GOOD + "# changed\n").digest
