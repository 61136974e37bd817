"""One reader per file format, each returning the same table of users, items and times.

May import storage, configs, contracts and data's own layout. Begin with interaction_table.py (what a reader returns)
and table.py (the simplest reader).
"""
