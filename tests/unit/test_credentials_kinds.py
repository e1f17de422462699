"""The other kinds of credentials: a header, a signature, keys in the body; and that no key is recorded."""

import hmac
import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from standardwebhooks import Webhook

from schemas.outcome import Source
from tasks.operator.checks import check_file
from tests.tenants import ENVIRON, write_tenants
from worker.errors import ConfigurationError
from worker.receiver.credentials import Proof, present, without_keys
from worker.sources import event_id
from worker.tenants import (
    BasicCredentials,
    BearerCredentials,
    BodyKeys,
    Credentials,
    HeaderCredentials,
    WebhookCredentials,
    load_tenants,
)

WHSEC = "whsec_" + b64encode(b"0123456789abcdef01234567").decode()
BODY = '{"candidateId": "ü-1", "apiKey": "k3y", "secretKey": "s3cret", "score": 80.50}'.encode()


def header(value: str = "v4lue") -> HeaderCredentials:
    return HeaderCredentials.model_construct(kind="header", name="X-Api-Key", value=SecretStr(value))


def signed(secret: str = WHSEC) -> WebhookCredentials:
    return WebhookCredentials.model_construct(kind="standard-webhooks", secret=SecretStr(secret))


def keys(**named: str) -> BodyKeys:
    given = named or {"apiKey": "k3y", "secretKey": "s3cret"}
    return BodyKeys.model_construct(kind="body-keys", keys={name: SecretStr(value) for name, value in given.items()})


def signature(body: bytes = BODY, secret: str = WHSEC, ago: timedelta = timedelta(0), **changed: str) -> dict[str, str]:
    at = datetime.now(UTC) - ago
    told = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body.decode()),
    }
    return told | {name.replace("_", "-"): value for name, value in changed.items()}


def allowed(listed: list[Credentials], headers: dict[str, str], body: bytes | None = None) -> bool:
    """Whether the sender is known: by the headers, or by the body if there is one."""
    proof = Proof(listed, headers)
    if body is None:
        return proof.accepted
    proof.update(body)
    proof.open(body)
    return proof.end()


@pytest.mark.parametrize(
    ("value", "comes_in"), [("v4lue", True), ("V4LUE", False), ("v4lu", False), ("v4lue2", False), ("", False)]
)
def test_a_header_of_the_sender_must_say_it_letter_by_letter(value: str, comes_in: bool) -> None:
    assert allowed([header()], {"x-api-key": value}) is comes_in
    assert allowed([header("other"), header()], {"x-api-key": value}) is comes_in
    assert not allowed([header()], {})


def test_a_signature_over_the_body_comes_in_with_any_of_the_listed_secrets() -> None:
    other = "whsec_" + b64encode(b"another secret, 24 bytes").decode()
    assert allowed([signed()], signature(), BODY)
    assert allowed([signed(other), signed()], signature(), BODY)
    assert allowed([signed(other), signed()], signature(secret=other), BODY)
    assert not allowed([signed(other)], signature(), BODY)
    assert allowed([signed(WHSEC.removeprefix("whsec_"))], signature(), BODY)


def test_a_sender_who_changes_his_secret_may_sign_with_both() -> None:
    other = "whsec_" + b64encode(b"another secret, 24 bytes").decode()
    two = signature(secret=other)["webhook-signature"] + " " + signature()["webhook-signature"]
    assert allowed([signed()], signature(webhook_signature=two), BODY)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param(signature(webhook_id=""), id="no id"),
        pytest.param(signature(webhook_id="msg_2"), id="another id"),
        pytest.param(signature(webhook_signature=""), id="no signature"),
        pytest.param(signature(webhook_signature="v1"), id="no value"),
        pytest.param(signature(webhook_signature="v1,***"), id="not base64"),
        pytest.param(signature(webhook_signature="v1,ÿÿÿÿ"), id="not ASCII"),
        pytest.param(signature(webhook_signature="v1a,AAAA"), id="only of another version"),
        pytest.param(signature(webhook_timestamp="yesterday"), id="no time"),
        pytest.param(signature(webhook_timestamp="nan"), id="not a number"),
        pytest.param(signature(ago=timedelta(minutes=6)), id="an old one, replayed"),
        pytest.param(signature(ago=timedelta(days=-1)), id="from the future"),
        pytest.param(signature(body=BODY + b" "), id="of another body"),
    ],
)
def test_a_signature_that_is_not_right_stays_outside_and_raises_nothing(headers: dict[str, str]) -> None:
    assert not allowed([signed()], headers, BODY)


@pytest.mark.parametrize(
    "body", ["José".encode("latin-1"), b"\xff\xfe{\0", b"\xed\xa0\x80", b"a\0b", b"\xef\xbb\xbf{}", b""]
)
def test_what_is_signed_is_bytes_whatever_they_mean(body: bytes) -> None:
    """standardwebhooks.com, "Signature scheme". The reference library verifies text only."""
    now = str(int(datetime.now(UTC).timestamp()))
    made = hmac.new(b64decode(WHSEC.removeprefix("whsec_")), f"msg_1.{now}.".encode() + body, "sha256").digest()
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": now,
        "webhook-signature": f"v1a,x v1,{b64encode(made).decode()}",
    }
    assert allowed([signed()], headers, body)
    assert not allowed([signed()], headers, body + b"\0")
    assert not allowed([signed()], headers | {"webhook-id": "msg_é"}, body)


@given(st.text(), st.integers(-290, 290))
@settings(max_examples=50)
def test_whatever_the_reference_library_signs_is_right_and_it_takes_what_is_right(text: str, ago: int) -> None:
    body = text.encode("utf-8", "replace")
    headers = signature(body, ago=timedelta(seconds=ago))
    assert allowed([signed()], headers, body)
    Webhook(WHSEC).verify(body, headers, json_parse=False)


def test_what_cannot_be_a_signature_is_known_before_the_body_is_read() -> None:
    assert Proof([signed()], signature()).possible
    for wrong in ({}, signature(webhook_id=""), signature(webhook_signature="v2,AAAA"), signature(ago=timedelta(1))):
        assert not Proof([signed()], wrong).possible


def test_without_its_body_nothing_that_looks_into_it_comes_in() -> None:
    assert Proof([header(), keys()], {}).possible
    assert not Proof([header(), signed()], {}).possible
    assert not allowed([signed(), keys()], signature())


@pytest.mark.parametrize(
    ("body", "comes_in"),
    [
        (BODY, True),
        (b'{"apiKey":"k3y","secretKey":"s3cret"}', True),
        (b'\xef\xbb\xbf {"apiKey":"k3y","secretKey":"s3cret"} ', True),
        (b'{"\\u0061piKey":"k\\u0033y","secretKey":"s3cret"}', True),
        (b'{"apiKey":"k3y"}', False),
        (b'{"apiKey":"s3cret","secretKey":"k3y"}', False),
        (b'{"apiKey":"wrong","secretKey":"s3cret"}', False),
        (b'{"apiKey":"k3y","secretKey":"s3cret","apiKey":"wrong"}', False),
        (b'{"apiKey":"wrong","secretKey":"s3cret","apiKey":"k3y"}', False),
        (b'{"apikey":"k3y","secretkey":"s3cret"}', False),
        (b'{"inner":{"apiKey":"k3y","secretKey":"s3cret"}}', False),
        (b'[{"apiKey":"k3y","secretKey":"s3cret"}]', False),
        (b'{"apiKey":["k3y"],"secretKey":null}', False),
        (b'{"apiKey":"k3y","secretKey":"s3cret"', True),
        (b'{"apiKey":"k3y","secretKey":"s3cret",,}{}', True),
        ('{"n":"José","apiKey":"k3y","secretKey":"s3cret"}'.encode("latin-1"), True),
        (b'{"n":"\\ud83d","apiKey":"k3y","secretKey":"s3cret","d":' + b"[" * 5000 + b"]" * 5000 + b"}", True),
        (b'{"n":"\\"apiKey\\":","\\"apiKey": "","m":"\\\\","apiKey":"k3y","secretKey":"s3cret"}', True),
        (b'{"apiKey":"k3y","secretKey":"s3cret' + b"x" * 100_000 + b'"}', False),
        (b'{"apiKey":"k3y","secretKey":"s3cret', False),
        (b'{"apiKey":"k3y","secretKey":', False),
        (b'{"apiKey":"k3y","secretKey"', False),
        (b"{" + b'"apiKey":"k3y",' * 1000 + b'"secretKey":"s3cret"}', False),
        (b'{"apiKey":"k3y","secretKey":"\\ud800"}', False),
        (b"", False),
        (b"\xff", False),
        (b"[" * 100_000, False),
        (b'{"a":' + b"[" * 100_000, False),
    ],
)
def test_keys_in_the_body_must_all_be_there_and_all_be_right(body: bytes, comes_in: bool) -> None:
    assert allowed([keys()], {}, body) is comes_in
    assert allowed([keys(apiKey="next", secretKey="next"), keys()], {}, body) is comes_in


@pytest.mark.parametrize("name", ["a/b", 'a"b', "a\\b", "ü", "𝄞", "a b", "a.b", "[a]", "\t"])
def test_a_name_is_found_in_each_spelling_that_json_has_for_it(name: str) -> None:
    spelled = {json.dumps(name), json.dumps(name, ensure_ascii=False), json.dumps(name).replace("/", "\\/")}
    spelled |= {'"' + "".join(f"\\u{unit:04X}" for unit in _units(name)) + '"'}
    for one in spelled:
        body = f'{{"x": 1, {one} : "k3y"}}'.encode()
        assert allowed([keys(**{name: "k3y"})], {}, body)
        assert without_keys([keys(**{name: "k3y"})], body) == body.replace(b"k3y", b"")


def _units(text: str) -> tuple[int, ...]:
    packed = text.encode("utf-16-be")
    return tuple(int.from_bytes(packed[at : at + 2]) for at in range(0, len(packed), 2))


def test_a_number_is_no_key_though_it_reads_the_same() -> None:
    assert allowed([keys(pin="12")], {}, b'{"pin": "12"}')
    assert not allowed([keys(pin="12")], {}, b'{"pin": 12}')


def test_keys_are_blanked_and_the_rest_stays_byte_for_byte() -> None:
    kept = '{"candidateId": "ü-1", "apiKey": "", "secretKey": "", "score": 80.50}'.encode()
    assert without_keys([keys()], BODY) == kept
    assert without_keys([header(), keys(apiKey="x"), keys(secretKey="y")], BODY) == kept
    assert without_keys([header()], BODY) == BODY
    assert without_keys([keys()], kept) == kept


def test_what_is_no_object_loses_its_keys_wherever_they_stand() -> None:
    assert without_keys([keys()], BODY[:-1]) == BODY[:-1].replace(b"k3y", b"").replace(b"s3cret", b"")
    assert without_keys([keys()], b"[" + BODY + b"]").count(b"s3cret") == 0
    assert without_keys([keys()], b"\xff s3cret") == b"\xff "


def test_a_delivery_stays_the_same_event_when_its_key_is_changed() -> None:
    listed = [keys(), keys(apiKey="next", secretKey="other")]
    rotated = BODY.replace(b"k3y", b"next").replace(b"s3cret", b"other")
    assert allowed(listed, {}, rotated)
    assert allowed(listed, {}, BODY)
    ids = {event_id("acme", Source.PROV, "", without_keys(listed, body)) for body in (BODY, rotated)}
    assert len(ids) == 1


#: JSON that Python reads back as it wrote it, and the space that may stand around it.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
SPACE = st.text(" \t\r\n", max_size=2)
MEMBERS = st.lists(
    st.tuples(st.sampled_from(["apiKey", "secretKey", "ApiKey"]) | st.text(), VALUES, st.booleans(), SPACE, SPACE),
    max_size=6,
)


@given(MEMBERS)
def test_whatever_the_body_only_the_named_members_are_blanked(members: list[tuple[str, Any, bool, str, str]]) -> None:
    def text(blanked: bool) -> bytes:
        told = []
        for name, value, ascii_only, before, behind in members:
            said = '""' if blanked and name in ("apiKey", "secretKey") else json.dumps(value, ensure_ascii=ascii_only)
            told.append(f"{before}{json.dumps(name, ensure_ascii=ascii_only)}{behind}:{before}{said}{behind}")
        return f"{{{','.join(told)}}}".encode()

    assert without_keys([keys()], text(False)) == text(True)


@given(st.binary() | st.text().map(str.encode))
def test_no_body_whatever_raises_or_comes_in_by_chance(body: bytes) -> None:
    assert not allowed([keys(), signed()], {"webhook-id": "x"}, body)
    assert without_keys([keys()], body).count(b"s3cret") == 0


@pytest.mark.parametrize(
    "one",
    [
        BasicCredentials.model_construct(kind="basic", user="ü", password=SecretStr("p:w")),
        BearerCredentials.model_construct(kind="bearer", token=SecretStr("t0ken")),
        header(),
        signed(),
        keys(),
    ],
)
def test_what_a_sender_presents_comes_in(one: Credentials) -> None:
    headers, body = present(one, BODY)
    assert allowed([one], {name.lower(): value for name, value in headers.items()}, body)
    assert not allowed([one], {}, b"{}")


SOURCE = """
[tenants.acme.sources.prov]
credentials = [ {} ]
"""
ALL = ENVIRON | {"HEADER": "v4lue", "WHSEC": WHSEC, "KEY": "k3y", "BAD": "not base64!", "NONE": "whsec_", "BLANK": " "}
ALL["SHORT"] = "whsec_" + b64encode(b"23 bytes are one short!").decode()


@pytest.mark.parametrize(
    "line",
    [
        '{ kind = "header", name = "X-Api-Key", value = "env:HEADER" }',
        '{ kind = "standard-webhooks", secret = "env:WHSEC" }',
        '{ kind = "body-keys", keys = { apiKey = "env:KEY", secretKey = "env:HEADER" } }',
        '{ kind = "header", name = "X-Old", value = "env:KEY" }, { kind = "body-keys", keys = { k = "env:KEY" } }',
    ],
)
def test_each_kind_can_be_listed_in_the_tenants_file(line: str, tmp_path: Path) -> None:
    rules = load_tenants(write_tenants(tmp_path, "http://127.0.0.1:1", more=SOURCE.format(line)), ALL)
    told = rules["acme"].sources[Source.PROV].credentials
    assert [one.kind for one in told] == [part.split('"')[1] for part in line.split("kind = ")[1:]]
    assert not any(secret in repr(told) for secret in ("v4lue", "k3y", WHSEC))


SIGNING = "secret: a Standard Webhooks secret is base64, perhaps behind whsec_, of 24 bytes or more"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{ kind = "header", name = "X Api", value = "env:HEADER" }', "header.name"),
        ('{ kind = "header", name = "X-Api-Key", value = "plain" }', "header.value: a secret does not belong"),
        ('{ kind = "standard-webhooks", secret = "env:BAD" }', f"{SIGNING}; this has 0"),
        ('{ kind = "standard-webhooks", secret = "env:NONE" }', f"{SIGNING}; this has 0"),
        ('{ kind = "standard-webhooks", secret = "env:SHORT" }', f"{SIGNING}; this has 23 and can be guessed"),
        ('{ kind = "bearer", token = "env:BLANK" }', "bearer.token: the environment has no BLANK: set it"),
        ('{ kind = "body-keys", keys = {} }', "body-keys.keys"),
        ('{ kind = "body-keys", keys = { apiKey = "env:UNSET" } }', "body-keys.keys.apiKey: the environment has no"),
        ('{ kind = "digest" }', "credentials"),
    ],
)
def test_a_mistake_is_named_with_its_tenant_and_key(line: str, complaint: str, tmp_path: Path) -> None:
    path = write_tenants(tmp_path, "http://127.0.0.1:1", more=SOURCE.format(line))
    with pytest.raises(ConfigurationError) as caught:
        load_tenants(path, ALL)
    assert str(caught.value).startswith(f"{path}: tenants.acme.sources.prov.credentials")
    assert complaint in str(caught.value)
    assert "not base64!" not in str(caught.value)


def test_the_shortest_secret_that_the_standard_allows_is_taken(tmp_path: Path) -> None:
    assert len(b64decode(WHSEC.removeprefix("whsec_"))) == 24
    line = '{ kind = "standard-webhooks", secret = "env:WHSEC" }'
    load_tenants(write_tenants(tmp_path, "http://127.0.0.1:1", more=SOURCE.format(line)), ALL)


def test_a_secret_that_can_be_guessed_by_trying_is_told_by_check(tmp_path: Path) -> None:
    lines = (
        '{ kind = "bearer", token = "env:KEY" }',
        '{ kind = "standard-webhooks", secret = "env:WHSEC" }',
        '{ kind = "body-keys", keys = { apiKey = "env:KEY", secretKey = "env:LONG" } }',
    )
    path = write_tenants(tmp_path, "http://127.0.0.1:1", more=SOURCE.format(", ".join(lines)))
    tenants = load_tenants(path, ALL | {"LONG": "sixteen letters!", "ACME_CERTIVERSE": "fifteen letters"})
    found = [one for one in check_file(path, tenants) if one.check == "credentials"]
    assert [(one.tenant, one.holds, one.detail.partition(" characters")[0]) for one in found] == [
        ("acme", True, "certiverse.credentials (basic): 15"),
        ("acme", True, "prov.credentials (bearer): 3"),
        ("acme", True, "read_credentials (bearer): 4"),
    ]
    assert not any(secret in str(found) for secret in ("k3y", "fifteen", "r3ad"))


@pytest.mark.parametrize("body", [b"k3y s3cret", b'{"apiKey": "k3y", "secretKey": "wrong"}', b"{" * 70_000])
def test_a_body_without_the_right_keys_is_not_searched_for_them(body: bytes) -> None:
    """How long that takes depends on how much of a key stands in it."""
    proof = Proof([keys()], {})
    assert (proof.open(body), proof.end()) == (b"", False)
    forged = Proof([keys(), signed()], signature(body + b" "))
    forged.update(body)
    assert (forged.open(body, whole=True), forged.end()) == (b"", False)
    genuine = Proof([keys(), signed()], signature(body))
    genuine.update(body)
    assert (genuine.open(body, whole=True) != b"", genuine.end()) == (True, True)


def test_reading_over_http_takes_no_credentials_that_need_a_body(tmp_path: Path) -> None:
    path = write_tenants(tmp_path, "http://127.0.0.1:1")
    path.write_text(
        path.read_text().replace('"bearer", token = "env:ACME_READ"', '"body-keys", keys = { a = "env:KEY" }')
    )
    with pytest.raises(ConfigurationError, match="read_credentials"):
        load_tenants(path, ALL)
