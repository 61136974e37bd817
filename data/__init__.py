"""Datasets: reading other formats, preparing and splitting them, the dataset on disk, and batches for training.

`formats/` reads sources, `prepare/` makes a dataset of them, `layout.py`, `writing.py`, `dataset.py` and
`validation.py` are the dataset on disk, and `sampling/` makes batches. Modules here import `contracts`, `configs`,
`storage` and `kernels`, and neither models nor ranks. Begin with `dataset.Dataset`.
"""
