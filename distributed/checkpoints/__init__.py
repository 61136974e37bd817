"""Checkpoints of a run, and the run's folder or URI.

A checkpoint is complete or does not exist, and any number of ranks can read it.

- `contents.py`: the tensors of a checkpoint, and how ranks write and read theirs. `progress.py`: its counters.
- `index.py`: how "latest", "best" or a step is found, without reading a tensor.
- `saving.py`: saving, loading, resuming, and deleting old checkpoints.
- `snapshot.py`: the copy on the host that is written while training continues.
- `run_storage.py`: a run whose folder is at a URI.
- `start.py`: the checkpoint of another run that a training starts from.
- `run_folder.py`: why a command may not continue a run with another value of a knob.

Begin with `index.py`, then read `saving.py`. Modules here may import the rest of `distributed`, but not its
`training`, `inference` or `ray`.
"""
