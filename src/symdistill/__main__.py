"""`python -m symdistill` is the command line."""

from symdistill.cli import main

main()
