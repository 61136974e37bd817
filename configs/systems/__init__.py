"""The registry of systems, and the class of knobs of each system that has its own.

May import the sections of `configs`. Open registry.py first: it lists the systems and what each needs. Each
other file has the knobs of one system; mdsrec.py also has the paper's ablations.
"""
