"""The recommenders: each turns the items of a step into vectors of users and of items.

Each system is a file: `mdsrec.py`, `sasrec.py`, `sasrecf.py`, `gru4rec.py`, `gru4recf.py`, `fdsa.py`, `unisrec.py`,
`mmmlp.py`, `msm4sr.py`, `popularity.py`. `zoo.py` builds a system from its name.
ItemKNN has no model of its own: it is `Popularity` with weight 0, and `distributed/inference/score_gains.py` adds its
scores, which are co-occurrence. `system.py` joins a recommender with its item table.

May import `kernels`, `configs`, `storage`, `contracts` and TorchRec. Models know nothing of ranks, Ray, files or
loaders.

Open `recommender.py` first for the interface that every system implements, and `protocol.py` for the dataclasses that
pass through it. Then read `sasrec.py`, a small system, and `mdsrec.py`, which follows the paper's equations. The parts
of systems are in `blocks/`; faster computations of the same results are in `cpu/`.
"""
