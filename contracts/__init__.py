"""The types that packages exchange: a step's items and batch, an item graph's rows, and the error for bad input.

Imports nothing of the project. Open item_plan.py first: it defines the items of a step. Open batch.py for the sequences
and targets of a step, graph_rows.py for reading an item graph, modalities.py for the names that modalities may have,
terminal.py for whether progress bars are shown, text_table.py for printing a table, and errors.py for `InputError`.
"""
