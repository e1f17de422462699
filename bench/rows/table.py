"""Every row by its name, in the order in which they are measured: rows that share sides stand together."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from bench.line import Line
from bench.rows import (
    allocator,
    backlog,
    idle,
    lookups,
    memory,
    million,
    noop,
    operators,
    outage,
    pace,
    receiver,
    scale,
    start,
    taskiq,
    watched,
    whole_job,
)
from bench.session import Session

ROWS: Final[Mapping[str, Callable[[Session], Iterator[Line]]]] = {
    "backlog": backlog.measure,
    "backlog_40kb": backlog.measure_40kb,
    "noop": noop.measure,
    "taskiq": taskiq.measure,
    "whole_job": whole_job.measure,
    "idle": idle.measure,
    "start": start.measure,
    "lookups": lookups.measure,
    "pace": pace.measure,
    "outage": outage.measure,
    "receiver": receiver.measure,
    "memory": memory.measure,
    "million": million.measure,
    "operators": operators.measure,
    "scale": scale.measure,
    "allocator": allocator.measure,
    "watched": watched.measure,
}
