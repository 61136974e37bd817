"""Facts about a dataset, to look at before training.

Begin with inspect.py (what is computed), then facts.py (the result), surprises.py (what to look at first), and
text.py and page.py (how it is shown).
"""
