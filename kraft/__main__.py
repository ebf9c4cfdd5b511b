"""`python -m kraft`."""

from kraft.cli.main import main

main()
