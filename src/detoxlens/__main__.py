"""`python -m detoxlens` is the command line."""

from detoxlens.cli import main

main()
