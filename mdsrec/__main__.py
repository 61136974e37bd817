"""`python -m mdsrec` is the `mdsrec` command."""

from mdsrec.command import main

main(prog_name="mdsrec")
