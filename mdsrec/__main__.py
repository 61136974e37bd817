"""Run the `mdsrec` command as `python -m mdsrec`."""

from mdsrec.command import main

main(prog_name="mdsrec")
