"""The sample payloads: `<source>/<name>.json` beside what it means, `<name>.outcome.json` (`null`: it is no result).

`<source>/invalid/<name>.json` stands beside `<name>.error.txt`, the reason and the detail it is buried with.
To add a sample: write the payload, and write by hand what it ought to mean. All people in them are invented.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
#: As a value for `edited`: take the member away.
ABSENT = object()


def valid() -> list[Path]:
    return sorted(path for path in FOLDER.glob("*/*.json") if not path.name.endswith(".outcome.json"))


def invalid() -> list[Path]:
    return sorted(FOLDER.glob("*/invalid/*.json"))


def body(name: str) -> bytes:
    """The bytes of a sample, such as `certiverse/passed`."""
    return (FOLDER / f"{name}.json").read_bytes()


def edited(name: str, changes: Mapping[str, object]) -> bytes:
    """A sample with other values, by place: `{"testParts.0.rawScore": 7, "examResult.passFail": ABSENT}`."""
    document = json.loads(body(name))
    for place, value in changes.items():
        *way, last = place.split(".")
        at = document
        for step in way:
            at = at[_key(step)]
        if value is ABSENT:
            del at[_key(last)]
        else:
            at[_key(last)] = value
    return json.dumps(document).encode()


def big_certiverse(items: int = 130) -> bytes:
    """A result with many items: 130 make some 40 KB."""
    item = json.loads(body("certiverse/passed"))["testParts"][0]["rootSections"][0]["items"][0]
    many: list[Any] = [item | {"itemName": f"CSE-{number:05d}", "orderPresented": number} for number in range(items)]
    return edited("certiverse/passed", {"testParts.0.rootSections.0.items": many})


def _key(step: str) -> str | int:
    return int(step) if step.isdigit() else step
