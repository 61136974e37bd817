"""How a run lives on ranks: inputs, sharding, training, checkpoints, ranking with a trained model, and Ray.

`rank_task.py` is what every rank runs; `workers.py` decides where ranks run. `training/` trains, `inference/` ranks,
`checkpoints/` saves and restores, and only `ray/` imports Ray. A module here may import every package but `experiments`
and `jobs`. Begin with `training/trainer.py`: the life of a run, from top to bottom.

`distributed` is also the import name of dask.distributed; jobs check which of the two they got.
"""
