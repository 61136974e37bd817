"""Exact ranking of the whole catalogue, the metrics, and the notes that belong to a table of metrics.

May import model, data, kernels, configs and contracts. The loop over users, which encodes them and calls this package,
is in `distributed/inference`.

Open ranking.py first: it counts each target's rank and finds the best items. block_scores.py computes the scores of a
block of items, item_blocks.py divides items over ranks, and user_batches.py brings encoded users to every rank.
item_groups.py divides items into groups, within which targets are ranked too.
metrics.py has the formulas, saved_ranks.py writes and reads the ranks of all targets, and paired.py compares two
systems by them. result_settings.py describes how a ranking was made, and metrics_table.py prints tables.
"""
