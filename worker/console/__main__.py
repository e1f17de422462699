"""`python -m worker.console`: serve."""

from worker.console.app import main

main()
