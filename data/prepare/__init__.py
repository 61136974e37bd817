"""From source files to the content of a dataset: filters, splits, features, and the synthetic catalogue.

May import data.formats and data's writing. Begin with preparation.py, which names the steps in their order.
"""
