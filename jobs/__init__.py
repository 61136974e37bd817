"""The commands: each checks its settings and inputs, does its task and prints what it wrote.

One module per command; `mdsrec VERB` runs the same commands. These modules may import every package.
Begin with train.py. cli.py holds the options and checks that several commands share.
"""
