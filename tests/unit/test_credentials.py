"""Whether a request has valid credentials: every way to write them, right or wrong."""

import base64
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from worker.receiver.credentials import allowed
from worker.tenants import BasicCredentials, BearerCredentials, Credentials


def basic(user: str = "certiverse", password: str = "s3:cret") -> BasicCredentials:
    return BasicCredentials.model_construct(kind="basic", user=user, password=SecretStr(password))


def bearer(token: str = "t0ken") -> BearerCredentials:
    return BearerCredentials.model_construct(kind="bearer", token=SecretStr(token))


def told(user: str = "certiverse", password: str = "s3:cret") -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


BOTH = [basic(), bearer()]


@pytest.mark.parametrize(
    ("listed", "authorization", "in_order"),
    [
        pytest.param([basic()], told(), True, id="basic"),
        pytest.param([basic()], told().replace("Basic", "bAsIc"), True, id="the scheme in any case"),
        pytest.param([basic()], told().replace(" ", "   ") + "  ", True, id="more spaces"),
        pytest.param([basic(user="ümit", password="pässwörd")], told("ümit", "pässwörd"), True, id="not ASCII"),
        pytest.param([basic()], told(password="wrong"), False, id="wrong password"),
        pytest.param([basic()], told(user="other"), False, id="wrong user"),
        pytest.param([basic()], told(user="CERTIVERSE"), False, id="the user in another case"),
        pytest.param([basic()], told(password=""), False, id="no password"),
        pytest.param([basic()], told(user="certiverse:s3", password="cret"), True, id="a colon is just a character"),
        pytest.param([basic()], told()[:-1], False, id="base64 cut short"),
        pytest.param([basic()], "Basic ***", False, id="not base64"),
        pytest.param([basic()], "Basic ÿÿÿÿ", False, id="not ASCII where base64 is due"),
        pytest.param([basic()], "Basic " + b64encode(b"\xff\xfe").decode(), False, id="bytes that are no text"),
        pytest.param([basic()], "Basic", False, id="only the scheme"),
        pytest.param([basic()], "", False, id="an empty header"),
        pytest.param([basic()], None, False, id="no header"),
        pytest.param([bearer()], "Bearer t0ken", True, id="bearer"),
        pytest.param([bearer()], "bearer t0ken", True, id="bearer in lower case"),
        pytest.param([bearer()], "Bearer T0KEN", False, id="the token in another case"),
        pytest.param([bearer()], "Bearer t0ken2", False, id="a longer token"),
        pytest.param([bearer()], "Bearer ", False, id="an empty token"),
        pytest.param([bearer()], "t0ken", False, id="a token without scheme"),
        pytest.param([bearer()], told(), False, id="basic where bearer is due"),
        pytest.param([basic()], "Bearer t0ken", False, id="bearer where basic is due"),
        pytest.param(BOTH, "Bearer t0ken", True, id="the second of two"),
        pytest.param(BOTH, told(), True, id="the first of two"),
        pytest.param([basic(), basic(password="next")], told(password="next"), True, id="rotation: the new one"),
        pytest.param([basic(), basic(password="next")], told(), True, id="rotation: the old one"),
        pytest.param([basic(password="next")], told(), False, id="rotation: the old one is gone"),
        pytest.param([], told(), False, id="none listed"),
    ],
)
def test_a_request_comes_in_with_one_of_the_listed_credentials(
    listed: list[Credentials], authorization: str | None, in_order: bool
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    assert allowed(listed, headers) is in_order


#: As a server decodes a header's bytes.
LATIN = st.text(st.characters(max_codepoint=255))
SCHEMES = st.sampled_from(["Basic ", "basic\t", "Bearer ", "Digest ", ""])


@given(st.builds(lambda scheme, rest: scheme + rest, SCHEMES, LATIN | st.binary().map(lambda b: b64encode(b).decode())))
def test_no_header_whatever_raises_or_gets_in_by_chance(authorization: str) -> None:
    assert allowed(BOTH, {"authorization": authorization}) is _says_it(authorization)


def _says_it(authorization: str) -> bool:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip() == "t0ken"
    try:
        return scheme.lower() == "basic" and base64.b64decode(rest.strip(), validate=True) == b"certiverse:s3:cret"
    except ValueError:
        return False
