"""What earlier releases made of generated payloads: versions, event ids and names. None of them may ever change.

Another version of the same bytes would be another result; another event id or name would not be found again. The
answers in `tests/samples/recorded.txt` were written by 0.1.0 (c2c67ed), before an outcome was a plain structure. If a
test here fails, the code is wrong, not the file. Only the words of a refusal may change: then its line is written anew.
"""

import hashlib
import json
from copy import deepcopy
from random import Random
from typing import Any

from schemas.outcome import Source
from tests import samples
from worker.errors import PermanentError
from worker.ledger import trace
from worker.ledger.identity import Identity
from worker.sources import event_id, read

RECORDED = (samples.FOLDER / "recorded.txt").read_text().splitlines()
IDENTITY = Identity(bytes(range(32)))
#: These never change; others may get more members.
BASES = [
    *("certiverse/passed", "certiverse/rescored", "certiverse/test-part-scoring", "certiverse/offsets"),
    *("drillster/regular", "drillster/anonymous", "prov/camel-case", "prov/partner-spelling"),
]
TEXTS = [
    *(
        "",
        " ",
        "x",
        "Pass",
        "F",
        "true",
        "scaled",
        "4",
        "proctor ended",
        "completed",
        "TEST_COMPLETED",
        "a@Example.org",
    ),
    *(
        '"',
        "\\",
        "/",
        "\b\f\n\r\t",
        "\x00",
        "\x1f",
        "\x7f",
        "\x80",
        "é",
        "e\u0301",
        "\u2028",
        "\ufeff",
        "😀",
        "\u212a@x",
    ),
    *("0", "-0", "007", "12,5", "12.50", " 7 ", "1e3", "1E-7", "5e-1", "1e400", "1_000", "NaN", "Infinity", "٣", "+.5"),
    *("2026-03-04T15:33:30Z", "2026-03-04T15:33", "2026-03-04", "2026-03-04T15:33:30.25+05:30", "0001-01-01T00:00:00"),
    *("2026-03-04T15:33:30.123456789Z", "0999-12-31T23:59:59-01:00", "9999-12-31T23:59:59Z", "27-Jun-18 2:48:00 PM"),
]
NUMBERS = [0, -0.0, 1, 7, 100, 101, -1, 0.1, 70.1, 99.99, 1e-7, 1e11, 10**11, 10**12, 1e12, 1e300, 10**40, float("nan")]
OTHERS: list[Any] = [None, True, False, [], {}, [None], {"id": "x"}, [{"name": "A", "value": "B"}], float("inf")]


def _pick(chance: Random, among: list[Any]) -> Any:
    """One of them. `random()` alone gives the same numbers in every release of Python."""
    return among[int(chance.random() * len(among))]


def _leaves(value: Any) -> list[tuple[Any, Any]]:
    """Each place that holds a value: its container and its key there."""
    inner = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    deeper = [leaf for _, one in inner for leaf in _leaves(one)]
    return [(value, key) for key, one in inner if not isinstance(one, dict | list)] + deeper


def _value(chance: Random) -> Any:
    made = [round(chance.random() * 1000, int(chance.random() * 9)), int(chance.random() * 1000)]
    word = "".join(_pick(chance, TEXTS) for _ in range(3))
    return _pick(
        chance, [_pick(chance, TEXTS), word, _pick(chance, NUMBERS), *made, str(made[0]), _pick(chance, OTHERS)]
    )


def _payload(number: int) -> tuple[Source, bytes]:
    """A sample with up to six values replaced, the same one for the same number."""
    chance = Random(number)
    name = _pick(chance, BASES)
    document = json.loads(samples.body(name))
    for _ in range(1 + int(chance.random() * 6)):
        container, key = _pick(chance, _leaves(document))
        container[key] = deepcopy(_value(chance))
    return Source(name.partition("/")[0]), json.dumps(document, ensure_ascii=chance.random() < 0.5).encode()


def _answer(source: Source, body: bytes) -> tuple[str, str]:
    """The version, and a digest of the outcome's other parts; or a digest of the refusal."""
    try:
        outcome = read(source, body)
    except PermanentError as refused:
        return "refused", hashlib.sha256(str(refused).encode()).hexdigest()[:12]
    if outcome is None:
        return "ignored", "-"
    who, rest = outcome.candidate, (outcome.delivery, outcome.event_ref, outcome.unclear, outcome.contradiction)
    known = (who.student_id, who.email, *who.third_party_ids.values())
    return outcome.version, trace.who(IDENTITY, "acme", known)[:24] + IDENTITY.of(repr(rest))[:6]


def line(number: int) -> str:
    """What is recorded of one payload."""
    source, body = _payload(number)
    version, rest = _answer(source, body)
    id = event_id("acme", source, "", body)
    return f"{version} {rest} {id} {IDENTITY.version(version)} {IDENTITY.of(id)}"


def test_a_generated_payload_has_the_version_the_id_and_the_names_that_it_had() -> None:
    wrong = [number for number, recorded in enumerate(RECORDED) if line(number) != recorded]
    assert wrong == []


def test_what_is_recorded_has_versions_of_every_source_and_refusals() -> None:
    versions = [recorded.split()[0] for recorded in RECORDED]
    assert len({version for version in versions if version[1] == "-"}) > 150
    assert versions.count("refused") > 50
    assert {_payload(number)[0] for number, version in enumerate(versions) if version[1] == "-"} == {*Source}
