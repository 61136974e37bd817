"""Training on one rank: the course of a run, its epochs, and its optimiser steps.

- `trainer.py`: opens the inputs, shards the model, resumes, trains and evaluates. Begin with `trainer.train`.
- `start.py`: which weights a new run loads from another run, and which it does not train.
- `training_loop.py`: the loop over epochs and steps, and when checkpoints are written.
- `validation.py`: the metrics of an epoch, and the one that chooses the best checkpoint.
- `step.py`: optimiser steps. `steps_in_turn.py`: one after the other, if TorchRec's pipeline is not needed.
- `device_step.py`: a step on the device of a rank. `loader.py`: the processes that prepare steps.
- `nonfinite_guard.py`: why a step with a loss or gradient that is not finite is skipped.
- `read_ahead.py`: fetches the next batch while a step runs.

Modules here may import all of `distributed` but `distributed/ray`.
"""
