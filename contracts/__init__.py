"""What packages exchange: a step's items and batch, rows of an item graph, names of modalities, user-facing errors.

Imports nothing of the project. Begin with item_plan.py, which says what the items of a step are, then batch.py.
"""
