"""`python -m worker.receiver`: serve."""

from worker.receiver.app import main

main()
