"""`python -m worker`: the command `examrelay`."""

from worker.cli import main

main()
