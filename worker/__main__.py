"""`python -m worker`: the command `examrelay`."""

from worker.cli.app import main

main()
