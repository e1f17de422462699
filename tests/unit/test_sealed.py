"""What is sealed opens again, under its own key and for its own event, and nowhere else."""

import base64
import os
import pickle
import subprocess
import sys
from datetime import timedelta

import pytest

from schemas.event import Policy
from tests.settings_table import markdown
from worker.errors import ConfigurationError
from worker.ledger.sealed import PLAIN, SEALED, SealBroken, Sealer, SealUnknown, key_id
from worker.settings import Settings, load_settings

ONE, OTHER = bytes(range(32)), bytes(range(32, 64))
CONTENT = b'{"lastName": "Marked-Lovelace", "email": "marked@example.org"}' * 20


def text(*keys: bytes) -> str:
    return ",".join(base64.b64encode(key).decode() for key in keys)


@pytest.mark.parametrize("keys", [(), (ONE,), (ONE, OTHER)], ids=["no key", "one key", "two keys"])
@pytest.mark.parametrize("content", [b"", b"x", CONTENT, os.urandom(200_000)], ids=["empty", "short", "text", "random"])
def test_what_was_sealed_opens_to_the_same(keys: tuple[bytes, ...], content: bytes) -> None:
    sealer = Sealer(keys)
    assert sealer.open(sealer.seal(content, "evt_1"), "evt_1") == content


def test_without_keys_it_is_compressed_and_with_them_nothing_of_it_can_be_seen() -> None:
    plain, sealed = Sealer().seal(CONTENT, "evt_1"), Sealer([ONE]).seal(CONTENT, "evt_1")
    assert (plain[:1], sealed[:1], sealed[1:5]) == (PLAIN, SEALED, key_id(ONE))
    assert b"Marked" in plain
    assert b"Marked" not in sealed
    assert len(sealed) == len(plain) + 4 + 12 + 16


def test_the_same_content_is_never_sealed_to_the_same_bytes() -> None:
    sealer = Sealer([ONE])
    assert len({sealer.seal(CONTENT, "evt_1") for _ in range(1000)}) == 1000


def test_the_first_key_seals_and_each_opens() -> None:
    before, during, after = Sealer([OTHER]), Sealer([ONE, OTHER]), Sealer([ONE])
    assert during.open(before.seal(CONTENT, "evt_1"), "evt_1") == CONTENT
    assert after.open(during.seal(CONTENT, "evt_1"), "evt_1") == CONTENT


def test_what_was_stored_before_there_were_keys_still_opens() -> None:
    assert Sealer([ONE]).open(Sealer().seal(CONTENT, "evt_1"), "evt_1") == CONTENT
    assert Sealer([ONE]).open_text('{"score": "81.5"}', "reg-1") == '{"score": "81.5"}'


@pytest.mark.parametrize("keys", [(), (OTHER,)], ids=["no key", "another key"])
def test_without_its_key_it_is_said_which_one_is_missing(keys: tuple[bytes, ...]) -> None:
    for open_it in (
        lambda: Sealer(keys).open(Sealer([ONE]).seal(CONTENT, "evt_1"), "evt_1"),
        lambda: Sealer(keys).open_text(Sealer([ONE]).seal_text("told", "evt_1"), "evt_1"),
    ):
        with pytest.raises(SealUnknown, match=f"sealed under key {key_id(ONE).hex()}, which EXAMRELAY_PAYLOAD_KEYS"):
            open_it()


@pytest.mark.parametrize("stored", [b"", b"\x03newer"])
def test_a_form_of_another_version_is_left_alone(stored: bytes) -> None:
    with pytest.raises(SealUnknown, match="is not known to this version") as caught:
        Sealer([ONE]).open(stored, "evt_1")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.detail, error.retry_after) == (caught.value.detail, timedelta(minutes=1))
    assert error.reason.policy is Policy.RETRY


def test_content_that_got_under_another_event_does_not_open_there() -> None:
    sealer = Sealer([ONE])
    with pytest.raises(SealBroken):
        sealer.open(sealer.seal(CONTENT, "evt_1"), "evt_2")
    with pytest.raises(SealBroken):
        sealer.open_text(sealer.seal_text("told", "reg-1"), "reg-2")


@pytest.mark.parametrize("place", [5, 16, 17, 60, -1], ids=["nonce", "nonce's end", "content", "middle", "tag"])
def test_an_altered_byte_is_noticed(place: int) -> None:
    sealer = Sealer([ONE])
    stored = bytearray(sealer.seal(CONTENT, "evt_1"))
    stored[place] ^= 1
    with pytest.raises(SealBroken):
        sealer.open(bytes(stored), "evt_1")


@pytest.mark.parametrize("length", [0, 3, 4, 15, 16, 20, 40])
def test_what_was_cut_short_is_noticed(length: int) -> None:
    sealer = Sealer([ONE])
    with pytest.raises((SealBroken, SealUnknown)):
        sealer.open(sealer.seal(CONTENT, "evt_1")[: 1 + length], "evt_1")


def test_a_damaged_plain_form_is_noticed() -> None:
    with pytest.raises(SealBroken):
        Sealer().open(PLAIN + b"not zstd", "evt_1")


def test_a_text_without_keys_is_stored_as_it_is_and_with_them_not() -> None:
    assert Sealer().seal_text('{"status": "passed"}', "reg-1") == '{"status": "passed"}'
    sealed = Sealer([ONE]).seal_text('{"status": "passed"}', "reg-1")
    assert "passed" not in sealed
    assert Sealer([ONE]).open_text(sealed, "reg-1") == '{"status": "passed"}'


@pytest.mark.parametrize(
    ("sealed_by", "keys", "current"),
    [((), (), True), ((), (ONE,), False), ((ONE,), (ONE, OTHER), True), ((OTHER,), (ONE, OTHER), False)],
)
def test_it_is_known_whether_a_text_is_sealed_as_it_would_be_now(
    sealed_by: tuple[bytes, ...], keys: tuple[bytes, ...], current: bool
) -> None:
    assert Sealer(keys).is_current(Sealer(sealed_by).seal_text("{}", "x")) is current


def settings(**variables: str) -> Settings:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return load_settings()


def test_keys_are_read_in_their_order_with_blanks_and_line_ends_around_them() -> None:
    told = text(ONE, OTHER).replace(",", " ,\n ") + "\n"
    assert settings(EXAMRELAY_PAYLOAD_KEYS=told).sealing_keys == (ONE, OTHER)
    assert settings(EXAMRELAY_INDEX_KEY=text(ONE)).identity_key == ONE


def test_empty_keys_are_none() -> None:
    given = settings(EXAMRELAY_PAYLOAD_KEYS="", EXAMRELAY_INDEX_KEY="")
    assert (given.sealing_keys, given.identity_key) == ((), None)


@pytest.mark.parametrize(
    ("told", "place"),
    [
        ("hunter2-hunter2", 1),
        (text(ONE)[:-4], 1),
        (text(ONE + b"x"), 1),
        (text(ONE) + ",", 2),
        (text(ONE) + ",hunter2", 2),
        (",", 1),
        (ONE.hex(), 1),
        (f"{text(ONE)};{text(OTHER)}", 1),
        ("schlüssel", 1),
    ],
)
def test_a_malformed_key_is_refused_with_the_variable_the_form_and_the_command_that_makes_one(
    told: str, place: int
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(EXAMRELAY_PAYLOAD_KEYS=told)
    message = str(caught.value)
    assert message.startswith(f"EXAMRELAY_PAYLOAD_KEYS: key {place} is not 32 bytes in base64")
    assert "`openssl rand -base64 32` makes one" in message
    assert "hunter2" not in message
    assert "\n" not in message


def test_an_index_key_is_one() -> None:
    with pytest.raises(ConfigurationError, match=r"^EXAMRELAY_INDEX_KEY: is one key, not several$"):
        settings(EXAMRELAY_INDEX_KEY=text(ONE, OTHER))


def test_no_key_is_shown() -> None:
    given = settings(EXAMRELAY_PAYLOAD_KEYS=text(ONE), EXAMRELAY_INDEX_KEY=text(OTHER))
    shown = f"{given!r} {given.model_dump()} {given.model_dump_json()}"
    assert text(ONE) not in shown
    assert text(OTHER) not in shown


@pytest.mark.external
def test_the_command_that_is_named_makes_a_good_key() -> None:
    try:
        made = subprocess.run(["openssl", "rand", "-base64", "32"], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert len(settings(EXAMRELAY_PAYLOAD_KEYS=made).sealing_keys) == 1


def test_the_table_of_variables_names_each_once_and_shows_no_value() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXAMRELAY_PAYLOAD_KEYS", text(ONE))
        table = markdown()
    lines = table.splitlines()
    assert len(lines) == 2 + len(Settings.model_fields) + 1
    assert all(line.count("|") == 4 for line in lines)
    assert "| `REDIS_URL` | required |" in table
    assert table.count("`EXAMRELAY_PAYLOAD_KEYS`") == 1
    assert text(ONE) not in table


def test_threads_open_and_seal_at_once() -> None:
    """As the console's pages do. In a process of its own: what zstd does with one context in two threads may end it."""
    many = """
import os
from concurrent.futures import ThreadPoolExecutor
from worker.ledger.sealed import Sealer
sealer, content = Sealer(), os.urandom(60_000)
same = lambda number: sealer.open(sealer.seal(content, str(number)), str(number)) == content
print(all(ThreadPoolExecutor(8).map(same, range(2_000))))
"""
    done = subprocess.run([sys.executable, "-c", many], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
