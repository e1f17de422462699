"""The tasks: their names, their queues, and how long one may run. Imports nothing: every part must agree on it."""

from typing import Final

PROCESS: Final = "tasks.process"
SYNC: Final = "tasks.sync"
SWEEP: Final = "tasks.sweep"
RECEIVE: Final = "tasks.receive"
HINT_QUEUE: Final = "examrelay"
SWEEP_QUEUE: Final = "examrelay.sweep"
RECEIVE_QUEUE: Final = "examrelay.receive"

#: A process or sync task writes what it has found when this is up, in seconds,
SOFT_TASK_SECONDS: Final = 40
#: and is killed when this is: the longest life of a task.
TASK_SECONDS: Final = 45
#: The same of a sweep, and of `tasks.receive`.
OTHER_TASK_SECONDS: Final = 60
#: A task's slot is free again then, however it ended; a warm stop waits as long. Shorter than a lease.
SLOT_SECONDS: Final = TASK_SECONDS + 5
