"""Whether the time of a refusal tells anything of a secret: `python -m bench.timing [SAMPLES]`, 4,000 by default.

For each kind of credentials, guesses that are nearly right, entirely wrong, or by an unknown user are checked in random
turns, all of one length. One wrong guess takes part twice: what lies between it and itself is noise. A `control` that
stops at the first wrong character shows that such a difference would be seen. Exit code 1: one was seen.
"""

import gc
import random
import secrets
import statistics
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
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

#: A difference below this is none: a packet on a wire varies by a thousand times as much.
FLOOR_NS = 40
#: Each has secrets and guesses of its own: where they lie in memory, and their letters, make a difference too.
ROUNDS = 20
#: A password takes 20 ms by design.
PASSWORDS_PER_SAMPLE = 1 / 20
#: Of a body that is no JSON: as many guesses as make a difference of a nanosecond visible.
REPEATED = 400

Check = Callable[[], object]


class Secrets:
    """Of one round, all of one length: the secret, one with another last character, and two entirely different ones."""

    def __init__(self) -> None:
        self.right = secrets.token_hex(20)
        self.near = self.right[:-1] + "X"
        self.wrong, self.other = (secrets.token_hex(20).upper() for _ in range(2))
        self.hidden = SecretStr(self.right)


class Row(NamedTuple):
    """One guess against the wrong one: median, mean difference, its error, and the noise, in nanoseconds."""

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


def turn(guesses: dict[str, Check], samples: int) -> dict[str, float]:
    """The median of each guess over so many samples, in random turns."""
    checks = list((guesses | {"wrong again": guesses["wrong"]}).items())
    times: dict[str, list[int]] = {name: [] for name, _ in checks}
    assert not any(check() for _, check in checks), "all must be refused"
    gc.collect()
    gc.disable()
    for _ in range(samples):
        random.shuffle(checks)
        for name, check in checks:
            began = time.perf_counter_ns()
            check()
            times[name].append(time.perf_counter_ns() - began)
    gc.enable()
    return {name: statistics.median(found) for name, found in times.items()}


def rows(kind: str, rounds: list[dict[str, float]]) -> Iterator[Row]:
    """A row for each guess but the wrong one."""
    differences = {name: [one[name] - one["wrong"] for one in rounds] for name in rounds[0] if name != "wrong"}
    noise = abs(statistics.fmean(differences["wrong again"]))
    for name, found in differences.items():
        error = statistics.stdev(found) / len(found) ** 0.5
        yield Row(kind, name, statistics.median(one[name] for one in rounds), statistics.fmean(found), error, noise)


def stops_early(guess: str, secret: str) -> bool:
    """What nobody must write."""
    return all(one == other for one, other in zip(guess, secret, strict=True))


def by_headers(made: Secrets) -> Iterator[tuple[str, dict[str, Check]]]:
    """Kinds that the headers alone decide. Read credentials and the metrics token are these, by the same function."""

    def checks(credential: Any, headers: dict[str, dict[str, str]]) -> dict[str, Check]:
        return {name: partial(allowed, [credential], told) for name, told in headers.items()}

    def login(user: str, password: str) -> dict[str, str]:
        return {"authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}

    yield "control", {name: partial(stops_early, getattr(made, name), made.right) for name in ("near", "wrong")}
    basic = BasicCredentials.model_construct(kind="basic", user="certiverse", password=made.hidden)
    logins = {"near": ("certiverse", made.near), "wrong": ("certiverse", made.wrong)}
    logins["unknown user"] = ("nobodysapp", made.near)
    yield "basic", checks(basic, {name: login(*one) for name, one in logins.items()})
    both = {"near": made.near, "wrong": made.wrong}
    bearer = BearerCredentials.model_construct(kind="bearer", token=made.hidden)
    yield "bearer", checks(bearer, {name: {"authorization": f"Bearer {one}"} for name, one in both.items()})
    header = HeaderCredentials.model_construct(kind="header", name="X-Api-Key", value=made.hidden)
    yield "header", checks(header, {name: {"x-api-key": one} for name, one in both.items()})


def proof(credential: Any, body: bytes, headers: dict[str, str]) -> bool:
    """As the receiver checks a body."""
    found = Proof([credential], headers)
    found.update(body)
    found.open(body)
    return found.end()


def by_body(made: Secrets) -> Iterator[tuple[str, dict[str, Check]]]:
    """Kinds that the body decides."""
    at, body = datetime.now(UTC), b'{"score": 80}'
    stamp, whsec = str(int(at.timestamp())), "whsec_" + b64encode(made.right.encode()).decode()
    right = b64decode(Webhook(whsec).sign("msg_1", at, body.decode()).removeprefix("v1,"))
    signed = WebhookCredentials.model_construct(kind="standard-webhooks", secret=SecretStr(whsec))
    guesses = {"near": right[:-1] + bytes([right[-1] ^ 1]), "wrong": secrets.token_bytes(len(right))}
    told = {name: f"v1,{b64encode(one).decode()}" for name, one in guesses.items()}
    heads = {
        name: {"webhook-id": "msg_1", "webhook-timestamp": stamp, "webhook-signature": one}
        for name, one in told.items()
    }
    yield "standard-webhooks", {name: partial(proof, signed, body, one) for name, one in heads.items()}
    second = Secrets()
    keys = BodyKeys.model_construct(kind="body-keys", keys={"apiKey": made.hidden, "secretKey": second.hidden})
    pairs = {
        "near": (made.near, second.near),
        "wrong": (made.wrong, second.wrong),
        "one right": (made.right, second.wrong),
    }
    bodies = {name: f'{{"apiKey": "{one}", "secretKey": "{two}"}}'.encode() for name, (one, two) in pairs.items()}
    yield "body-keys", {name: partial(proof, keys, one, {}) for name, one in bodies.items()}
    # Right at its beginning and its end, and wrong between: what a search for the key compares longest.
    almost = made.right[:30] + "X" + made.right[31:]
    bodies = {name: (one * REPEATED).encode() for name, one in (("near", almost), ("wrong", made.wrong))}
    yield "body-keys, no JSON", {name: partial(proof, keys, one, {}) for name, one in bodies.items()}


def of_console(client: "redis.Redis") -> Iterator[tuple[str, dict[str, Check]]]:
    """Session and form token. A session is looked up by a digest of its token."""
    token = sessions.begin(client, "{}")
    near, wrong = token[:-1] + ("A" if token[-1] != "A" else "B"), secrets.token_urlsafe(32)
    yield "session", {name: partial(sessions.found, client, one) for name, one in (("near", near), ("wrong", wrong))}
    right = signing_in.form_token(token)
    forms = {"near": right[:-1] + "x", "wrong": secrets.token_hex(32)}
    yield (
        "form token",
        {name: partial(signing_in.is_ours, Form([("form_token", one)]), token) for name, one in forms.items()},
    )


def of_passwords(made: Secrets) -> Iterator[tuple[str, dict[str, Check]]]:
    """Users whose hashes cost the same. Those of unknown names cost as much as one of them."""
    user = SimpleNamespace(password=SecretStr(signing_in.HASHER.hash(made.right)))
    at: Any = SimpleNamespace(tenants=SimpleNamespace(console=SimpleNamespace(users={"ann": user})))
    guesses = {"near": ("ann", made.near), "wrong": ("ann", made.wrong), "unknown user": ("bob", made.right)}
    yield "password", {name: partial(signing_in._is_password, at, *one) for name, one in guesses.items()}


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    found: dict[str, list[dict[str, float]]] = {}
    valkey = Valkey().start()
    try:
        with redis.Redis.from_url(valkey.url) as client:
            for _ in range(ROUNDS):
                made = Secrets()
                for kind, guesses in (*by_headers(made), *by_body(made), *of_console(client), *of_passwords(made)):
                    few = PASSWORDS_PER_SAMPLE if kind == "password" else 1
                    found.setdefault(kind, []).append(turn(guesses, max(3, int(samples * few / ROUNDS))))
    finally:
        valkey.close()
    print("| kind | guess | median | against wrong | error | |\n| --- | --- | --- | --- | --- | --- |")
    mistaken = []
    for one in (row for kind, rounds in found.items() for row in rows(kind, rounds)):
        verdict = "seen" if one.seen else "within noise"
        figures = f"{one.median:,.0f} ns | {one.difference:+,.0f} ns | {one.error:,.0f} ns"
        print(f"| {one.kind} | {one.guess} | {figures} | {verdict} |")
        if one.seen != (one.kind == "control" and one.guess == "near"):
            mistaken.append(f"{one.kind}, {one.guess}")
    sys.exit(f"not as it should be: {'; '.join(mistaken)}" if mistaken else 0)


if __name__ == "__main__":
    main()
