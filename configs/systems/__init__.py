"""The registry of systems, and the class of knobs of each system that has its own.

May import the sections of `configs`. Open registry.py first: it lists the systems and what each needs. mdsrec.py has
MDSRec's knobs and the paper's ablations.
"""
