"""The tasks: their names, their queues, and how long one may run. Imports nothing, so that every part can import it."""

from typing import Final

PROCESS: Final = "tasks.process"
#: Another name of PROCESS, for hints of earlier releases: there were two tasks.
SYNC: Final = "tasks.sync"
SWEEP: Final = "tasks.sweep"
RECEIVE: Final = "tasks.receive"
HINT_QUEUE: Final = "examrelay"
SWEEP_QUEUE: Final = "examrelay.sweep"
RECEIVE_QUEUE: Final = "examrelay.receive"
#: Where an entry of that queue is until the worker that took it has noted it in Celery's `unacked`.
TAKEN: Final = "examrelay.receive.taken"
#: Where a Celery client sends that names no queue.
DEFAULT_QUEUE: Final = "celery"

#: Seconds after which a task of PROCESS stops working and writes what it has found.
SOFT_TASK_SECONDS: Final = 40
#: Seconds after which it is killed: the longest life of a task.
TASK_SECONDS: Final = 45
#: The same of a sweep, and of `tasks.receive`.
OTHER_TASK_SECONDS: Final = 60
#: After this a task's slot is free again, however the task ended; a warm stop waits as long. Shorter than a lease.
SLOT_SECONDS: Final = TASK_SECONDS + 5
