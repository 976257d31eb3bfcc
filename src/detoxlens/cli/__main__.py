"""`python -m detoxlens.cli` is the command line, as `python -m detoxlens` is."""

from detoxlens.cli import main

main()
