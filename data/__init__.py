"""Datasets: reading source files, preparing and splitting them, the dataset on disk, and batches for training.

May import `contracts`, `configs`, `storage` and `kernels`, but nothing of models or ranks.

Open `dataset.py` first: it describes the folder, and `Dataset` reads it. `layout.py` has the names of its files,
`writing.py` writes it, `dataset_files.py` and `validation.py` check it, and `sequences.py` finds targets and histories
in it. `formats/` reads source files, `encoding/` turns texts and images into features, `prepare/` makes datasets, and
`sampling/` makes batches.
"""
