"""The ledger's keys, and what is in them. The Lua beside this builds the same names; nothing else does.

All of a tenant is under `er:{tenant}:`. Times are milliseconds of Redis `TIME`. What is sealed is encrypted when
there are keys (`sealed.py`); names made of candidate data are HMACs (`identity.py`).

`event:{id}` hash: an event. state, source, path, reason, detail, result, registration, delivery, version, received_at,
    receipts (from the second on), nonce (of the last receipt), who (the candidate's names: `trace.py`), attempts,
    first_attempt_at, answers (an operator's; sealed), problem (the receiver's); while claimed: lease (token), batch
    (size of the claim); after leases that expired: expiries, alone; while a write may be under way: intent (sealed);
    one that was still so when the event died: doubt (sealed); while it is held or dead for what Rhythm said of the
    write: words (sealed). history: a line a move (at, move, by, and the reason if there is one; tab-separated), times
    counted from received_at; the first line, `record`, is left out.
`payload:{id}` string: the body as sent, sealed. Expires after the event is final.
`history:{id}` string: lines like those of its history, with their times, of what is no move; and all lines that an
    earlier release wrote while the event waited.
`names:{bucket}` list: for each name in it of an event's candidate, when the event was received, and ten bits of it.
`events` zset: every event not pruned, by received_at.
`due:process`, `due:sync` zset: every `received`, `ready` event, by when it is next looked at. For a claimed event that
    is the end of its lease: one that expires needs nobody to free it.
`held`, `dead` zset: those events, by received_at (of older releases: by when they got there, until they leave).
`counts` hash: accepted, pruned, each state, `held:{reason}`, `dead:{reason}`, `synced:{result}`. Moved by the scripts
    that move the events, so they always equal what they count.
`totals` hash: what was ever counted, for `/metrics` (`totals.py`).
`told:{state}:{reason}:{day}` string: Sentry was told of the first such event of a day. 2 days.
`delivery:{source}:{id}` hash: a sitting. `v:{version}` the event that brought it, applied (version), rev.
`ref:{source}:{event_ref}` string: the delivery and version that a platform's `eventId` means.
`registration:{id}` hash: what it last said by our doing: event, values (sealed), base (the
    sys_version on top of which they were written); accepted (a person's override that an operator took for right;
    sealed); the highest sys_version seen; owner (the event whose intent is on it); rev (grows with each settlement);
    `e:{event}`: others that wrote, tried, or were held when they came to it.
`hint` string: when a hint was sent. Cleared by the first claim of a task, before it takes.
`slots` zset: the tokens of running tasks, by when they are over at the latest.
`moved` string: when a task last moved an event, or spent an attempt.
`synced:{hour}` string: how many events were synced in an hour (since 1970). A day.
`gate` hash: closed_until, reason, since, failures, probe_until, next (the pace's next free turn), closings (while turns
    were given out). Of a paced tenant: interval (ms between turns), busy (ms that a task has with one). What 429s have
    taught: learned (calls a second), learned_at, taught_at (the 429), hold, early, taken and gap (`gate.lua`).

Of earlier releases: `outcome:{id}` (gone when the event leaves `ready`); `hint:…`, `slots:…`, `moved:…`, of two tasks.

`audit_mark` string: how far an interrupted audit of Rhythm came, and where it differed, as JSON. 7 days.

Outside tenants: `er:tenants` set, `er:sweep` hash (at; `pruned_to:{tenant}`: how far pruning came),
`er:malformed` list (what was on a queue and no message: when, and the content sealed).
`er:strays` hash: strays, by a digest of what they hold: when, a line of JSON
    (why, task, bytes), the content sealed. Kept until a person removes them, or they are old; `er:strays.acts` list:
    who did and why. `er:strays.forgotten.{id}` string: it is not kept again. 400 days. `er:strays.at` zset: all of
    them, by when.
`er:index_key` string: the fingerprint of the key that names are made with, and the key itself when it was made here.
`er:token.{credentials}` string: an OAuth token, sealed; `er:token.{credentials}.lock`: who fetches one now.
`er:console.session.{digest}` string: who is signed in to the console. `er:console.once.{digest}`: who may sign in once.
    `er:console.failed.{digest}`: how many wrong passwords were tried for a name. All expire.
`er:hints` string: how many hints were ever sent.
`er:said.{caller}` string: the nonce of the caller's last call and its answer, so that a repeat gets the same. 10 min.
`er:takeovers` hash: for each replica that became primary, by its master_replid: a sentence for `audit` (`recent.py`).
`er:processes` hash: what each process tells of itself; `er:processes.seen` zset: when it last did.

Celery's: its queues (`worker/queues.py`; beside `examrelay.receive`, the list `examrelay.receive.taken`) and `unacked`;
`celery`, which is none of ours (`misdirected.py`).
"""

from typing import Final

from schemas.event import EventState

#: The index of each state that has one; the other states are final, and found by walking `events`.
INDEX_OF: Final = {state: state.index_name for state in EventState if state.index_name}
FINAL: Final = frozenset(EventState) - INDEX_OF.keys()

TENANTS = "er:tenants"
SWEEP = "er:sweep"
MALFORMED = "er:malformed"
STRAYS = "er:strays"
STRAYS_ACTS = "er:strays.acts"
STRAYS_FORGOTTEN = "er:strays.forgotten."
STRAYS_AT = "er:strays.at"
INDEX_KEY = "er:index_key"
PROCESSES = "er:processes"
TAKEOVERS = "er:takeovers"
ANSWERS = "er:said."
TOKEN = "er:token."
SESSION = "er:console.session."
INVITATION = "er:console.once."
SIGN_IN_FAILURES = "er:console.failed."


def key(tenant: str, *parts: str) -> str:
    """`er:{tenant}:{part}:{part}`."""
    return ":".join(("er", tenant, *parts))
