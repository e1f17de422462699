"""Whether the time of a refusal tells anything of a secret: `python -m bench.timing [SAMPLES]`, 4,000 by default.

For each kind of credentials, guesses that are nearly right, entirely wrong, or by an unknown user are checked in random
turns, all of one length. One wrong guess takes part twice: what lies between it and itself is noise. A `control` that
stops at the first wrong character shows that such a difference would be seen. Exit code 1: one was seen.
"""

import gc
import random
import statistics
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NamedTuple

import redis
from pydantic import SecretStr
from standardwebhooks import Webhook

from tests.running import Valkey
from worker.console import signing_in
from worker.console.visit import Form
from worker.ledger import sessions
from worker.receiver.credentials import Proof, allowed
from worker.tenants import BasicCredentials, BearerCredentials, BodyKeys, HeaderCredentials, WebhookCredentials

SECRET = "correct-horse-battery-staple-0123456789ab"
NEAR, WRONG = SECRET[:-1] + "X", "Z" * len(SECRET)
HIDDEN = SecretStr(SECRET)
WHSEC = "whsec_" + b64encode(SECRET.encode()).decode()
#: A difference below this is none: a packet on a wire varies by a thousand times as much.
FLOOR_NS = 40
BLOCKS = 20
#: A password takes 20 ms by design.
PASSWORDS_PER_SAMPLE = 1 / 20
#: Of a body that is no JSON: as many guesses as make a difference of a nanosecond visible.
REPEATED = 400

Check = Callable[[], object]


class Row(NamedTuple):
    """One guess against the wrong one: medians, their difference, its error and the noise, in nanoseconds."""

    kind: str
    guess: str
    median: float
    difference: float
    error: float
    #: What lies between the wrong one and itself.
    noise: float

    @property
    def seen(self) -> bool:
        return abs(self.difference) > max(4 * self.error, 2 * self.noise, FLOOR_NS, self.median / 1000)


def measured(kind: str, guesses: dict[str, Check], samples: int) -> list[Row]:
    """Each guess `samples` times in random turns, against `wrong`."""
    checks = list((guesses | {"wrong again": guesses["wrong"]}).items())
    times: dict[str, list[int]] = {name: [] for name, _ in checks}
    for _, check in checks:
        assert not check(), (kind, "must be refused")
    gc.collect()
    gc.disable()
    for _ in range(samples):
        random.shuffle(checks)
        for name, check in checks:
            began = time.perf_counter_ns()
            check()
            times[name].append(time.perf_counter_ns() - began)
    gc.enable()
    noise = abs(compared(times["wrong again"], times["wrong"])[0])
    return [
        Row(kind, name, statistics.median(found), *compared(found, times["wrong"]), noise)
        for name, found in times.items()
        if name != "wrong"
    ]


def compared(found: list[int], wrong: list[int]) -> tuple[float, float]:
    """The mean difference over blocks, and its error: the machine is not equally fast all the time."""
    size = max(1, len(found) // BLOCKS)
    blocks = [
        statistics.median(found[at : at + size]) - statistics.median(wrong[at : at + size])
        for at in range(0, size * BLOCKS, size)
        if found[at : at + size]
    ]
    error = statistics.stdev(blocks) / len(blocks) ** 0.5 if len(blocks) > 1 else float("inf")
    return statistics.fmean(blocks), error


def stops_early(guess: str) -> bool:
    """What nobody must write."""
    return all(one == other for one, other in zip(guess, SECRET, strict=True))


def by_headers() -> Iterator[tuple[str, dict[str, Check]]]:
    """Kinds that the headers alone decide. Read credentials and the metrics token are these, by the same function."""

    def checks(credential: Any, headers: dict[str, dict[str, str]]) -> dict[str, Check]:
        return {name: lambda told=told: allowed([credential], told) for name, told in headers.items()}  # type: ignore[misc]

    def login(user: str, password: str) -> dict[str, str]:
        return {"authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}

    basic = BasicCredentials.model_construct(kind="basic", user="certiverse", password=HIDDEN)
    logins = {"near": ("certiverse", NEAR), "wrong": ("certiverse", WRONG), "unknown user": ("nobodysapp", NEAR)}
    yield "basic", checks(basic, {name: login(*one) for name, one in logins.items()})
    both = {"near": NEAR, "wrong": WRONG}
    bearer = BearerCredentials.model_construct(kind="bearer", token=HIDDEN)
    yield "bearer", checks(bearer, {name: {"authorization": f"Bearer {one}"} for name, one in both.items()})
    header = HeaderCredentials.model_construct(kind="header", name="X-Api-Key", value=HIDDEN)
    yield "header", checks(header, {name: {"x-api-key": one} for name, one in both.items()})


def by_body() -> Iterator[tuple[str, dict[str, Check]]]:
    """Kinds that the body decides."""

    def proof(credential: Any, body: bytes, headers: dict[str, str]) -> bool:
        made = Proof([credential], headers)
        made.update(body)
        made.open(body)
        return made.end()

    at, body = datetime.now(UTC), b'{"score": 80}'
    right = b64decode(Webhook(WHSEC).sign("msg_1", at, body.decode()).removeprefix("v1,"))
    signed = WebhookCredentials.model_construct(kind="standard-webhooks", secret=SecretStr(WHSEC))
    guesses = {"near": right[:-1] + bytes([right[-1] ^ 1]), "wrong": bytes(one ^ 1 for one in right)}

    def headers(signature: bytes) -> dict[str, str]:
        stamp = str(int(at.timestamp()))
        return {
            "webhook-id": "msg_1",
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{b64encode(signature).decode()}",
        }

    told = {name: headers(one) for name, one in guesses.items()}
    yield "standard-webhooks", {name: lambda one=one: proof(signed, body, one) for name, one in told.items()}  # type: ignore[misc]
    keys = BodyKeys.model_construct(kind="body-keys", keys={"apiKey": HIDDEN, "secretKey": HIDDEN})
    pairs = {"near": (NEAR, NEAR), "wrong": (WRONG, WRONG), "one right": (SECRET, WRONG)}
    bodies = {name: f'{{"apiKey": "{one}", "secretKey": "{two}"}}'.encode() for name, (one, two) in pairs.items()}
    yield "body-keys", {name: lambda one=one: proof(keys, one, {}) for name, one in bodies.items()}  # type: ignore[misc]
    # As long as possible right at its beginning and end: what a search for the key compares longest.
    almost = SECRET[:20] + "X" + SECRET[21:]
    garbage = {"near": almost, "wrong": WRONG}
    bodies = {name: (one * REPEATED).encode() for name, one in garbage.items()}
    yield "body-keys, no JSON", {name: lambda one=one: proof(keys, one, {}) for name, one in bodies.items()}  # type: ignore[misc]


def of_console(client: "redis.Redis") -> Iterator[tuple[str, dict[str, Check]]]:
    """Session and form token. A session is looked up by a digest of its token."""
    token = sessions.begin(client, "{}")
    near, wrong = token[:-1] + ("A" if token[-1] != "A" else "B"), "Z" * len(token)
    guesses = {"near": near, "wrong": wrong}
    yield "session", {name: lambda one=one: sessions.found(client, one) for name, one in guesses.items()}  # type: ignore[misc]
    right = signing_in.form_token(token)
    forms = {
        name: Form([("form_token", one)]) for name, one in (("near", right[:-1] + "x"), ("wrong", "z" * len(right)))
    }
    yield "form token", {name: lambda one=one: signing_in.is_ours(one, token) for name, one in forms.items()}  # type: ignore[misc]


def of_passwords() -> dict[str, Check]:
    """Users whose hashes cost the same. Those of unknown names cost as much as one of them."""
    user = SimpleNamespace(password=SecretStr(signing_in.HASHER.hash(SECRET)))
    at: Any = SimpleNamespace(tenants=SimpleNamespace(console=SimpleNamespace(users={"ann": user})))
    guesses = {"near": ("ann", NEAR), "wrong": ("ann", WRONG), "unknown user": ("bob", SECRET)}
    return {name: lambda one=one: signing_in._is_password(at, *one) for name, one in guesses.items()}  # type: ignore[misc]


def all_rows(samples: int) -> Iterator[Row]:
    """Every kind; the control comes first."""
    yield from measured("control", {"near": lambda: stops_early(NEAR), "wrong": lambda: stops_early(WRONG)}, samples)
    for kind, guesses in (*by_headers(), *by_body()):
        yield from measured(kind, guesses, samples)
    valkey = Valkey().start()
    try:
        with redis.Redis.from_url(valkey.url) as client:
            for kind, guesses in of_console(client):
                yield from measured(kind, guesses, samples)
    finally:
        valkey.close()
    yield from measured("password", of_passwords(), max(BLOCKS, int(samples * PASSWORDS_PER_SAMPLE)))


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    print("| kind | guess | median | against wrong | error | |\n| --- | --- | --- | --- | --- | --- |")
    wrong = []
    for one in all_rows(samples):
        verdict = "seen" if one.seen else "within noise"
        figures = f"{one.median:,.0f} ns | {one.difference:+,.0f} ns | {one.error:,.0f} ns"
        print(f"| {one.kind} | {one.guess} | {figures} | {verdict} |")
        if one.seen != (one.kind == "control" and one.guess == "near"):
            wrong.append(f"{one.kind}, {one.guess}")
    sys.exit(f"not as it should be: {'; '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()
