"""Would the tests notice a fault? `python -m tests.mutants` makes faults, one at a time, and lists those that pass.

`operators.py` says which faults, `concerned.py` which tests are asked, `trial.py` runs them on a copy of the checkout.
"""
