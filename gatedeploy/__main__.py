"""`python -m gatedeploy` is the command line."""

from gatedeploy.cli import main

main()
