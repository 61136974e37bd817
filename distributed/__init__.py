"""Training, checkpoints, evaluation and recommendations of a run, on one rank or several.

Subpackages: `training/` trains a model. `inference/` uses a trained model: ranks, metrics and recommendations.
`checkpoints/` saves and loads the state of a run. `ray/` runs ranks on a Ray cluster; nothing else here imports Ray.
`torchrec/` splits the item table over ranks; nothing else here imports TorchRec.

Modules of this folder, by what you want to know:

- `rank_task.py`: what every rank runs, and which errors justify another attempt.
- `launch.py`: how a job starts its ranks. `run_location.py`: where they run, and on which device.
- `world.py`: a rank's number, its device, and collectives. `gathering.py`: the rows of all ranks, with gradients.
- `inputs.py`: the dataset and graph of a run, and the model that is built for them.
- `sharding.py`: how the item table is split over ranks. `optimizers.py`: which optimisers update the model.
- `stop_agreement.py`: when a training writes a checkpoint or stops. `stop_signals.py`: SIGTERM and Ctrl-C.
- `watchdog.py`: which rank hangs, and where. `telemetry.py`: metrics.jsonl and TensorBoard.
- `output.py`: the lines that a job prints, from whichever process they come.
- `matmul_precision.py`: TensorFloat-32 on a GPU, while training and at no other time.
- `job_paths.py`, `random_streams.py`, `host_memory.py`: paths of a command, seeds of a step, freed memory.

A module here may import every package but `experiments` and `jobs`. Begin with `training/trainer.py`, which shows a
training from beginning to end.

`dask.distributed` can also be imported as `distributed`; jobs check which of the two packages they got.
"""
