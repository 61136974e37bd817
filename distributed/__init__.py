"""How a run lives on ranks: sharding, the training loop, checkpoints, telemetry, Ray.

`distributed` is also the import name of dask.distributed; jobs check which of the two they got.
"""
