"""Facts about a dataset, to look at before training.

May import data and experiments.page. Begin with inspect.py (what is computed), then facts.py (the result),
surprises.py (what to look at first), and text.py and page.py (how it is shown).
"""
