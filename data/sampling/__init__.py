"""Makes the batches of training steps from a dataset, as pure functions of seed, epoch, step and rank.

May import the rest of `data`, `contracts` and `kernels`, but nothing of ranks: a rank is only a number here.

Open `batches.py` first: `TrainBatches` puts the parts together. `order.py` chooses the spans of a step, `spans.py`
defines what a span sees, `negatives.py` draws the candidates, `item_planner.py` and `item_links.py` determine the items
to look up, and `grouping.py` groups sequences of similar length.
"""
