"""Recommenders: what is learned, and how a user and an item become vectors.

One file per system (`mdsrec.py`, `sasrec.py`, `sasrecf.py`, `popularity.py`); `zoo.py` finds it by name. Their parts
are in `blocks/`, and faster computations of the same results in `cpu/`.

May import: `kernels`, `configs`, `storage`, `contracts` and TorchRec. Knows nothing of ranks, Ray, files or loaders.

Begin with `protocol.py` (what a recommender is), then `sasrec.py`, the smallest system, then `mdsrec.py`.
"""
