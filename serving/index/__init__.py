"""An index of item vectors: finds the items with the greatest inner products without scoring all of them.

- `build.py`: writes an index, a folder of faiss files with a manifest. `kinds.py`: its kinds and options. `blocks.py`:
  how it reads vectors. `of_system.py`: builds the index of a model.
- `search.py`: searches it (`VectorIndex`). `manifest.py`: what the manifest says.
- `two_stage.py`: lists of the best items from candidates of the index, scored anew with the exact rule. Open it first.
  `rescoring.py` computes those scores, and `bounds.py` the bounds that prove a list equal to the exact ranking.
- `recall.py`: how many of the best items a search finds, and the time of a query.

May import distributed/inference, evaluation, model, storage and contracts. faiss is optional: it is imported when an
index is built or opened.
"""
