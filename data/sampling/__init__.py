"""From a dataset to the batches of a training step, as pure functions of seed, epoch, step and rank.

`order.py` says which targets a step trains, `spans.py` which part of a sequence a target sees, `negatives.py` which
candidates are scored, and `item_plan.py` which items are looked up. `batches.py` puts these together. Imports the rest
of `data`, `contracts` and `kernels`, and nothing of ranks: a rank is a number here. Begin with `batches.TrainBatches`.
"""
