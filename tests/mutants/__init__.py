"""Would the tests notice a fault? `python -m tests.mutants` makes faults, one at a time, and lists those that pass.

`operators.py` makes the faults, `concerned.py` chooses the tests, and `trial.py` runs them on a copy of the checkout.
"""
