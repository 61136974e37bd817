"""Checkpoints of a run, and the run's folder or URI.

A checkpoint is complete or does not exist, and any number of ranks can read it.

- `tensors.py`: what a checkpoint contains, and how ranks write and read their tensors.
- `index.py`: the progress record of a checkpoint, and how "latest", "best" or a step is found.
- `checkpoint.py`: saving, loading, resuming, and deleting old checkpoints.
- `snapshot.py`: the copy on the host that is written while training continues.
- `run_storage.py`: a run whose folder is at a URI.
- `run_folder.py`: why a command may not continue a run with another value of a knob.

Begin with `index.py`, then read `checkpoint.py`. Modules here may import the rest of `distributed`, but not its
`training`, `inference` or `ray`.
"""
